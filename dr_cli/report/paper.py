"""The dictionary of `collect` -> PNG and SVG files for a paper (`dr report --figures DIR`).

Drawn for a column of 12 cm: no text below 8 pt, and a marker and a line style besides the colour.
"""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dr_cli.plots.lines import MARKERS, OKABE_ITO
from dr_cli.report.charts import trace_metric, trace_rocs
from dr_cli.report.svg import MOST_MARKERS, Line
from dr_cli.scoring.record import Record

STYLE: dict[Any, Any] = {
    "font.size": 9, "axes.labelsize": 9,
    "xtick.labelsize": 8, "ytick.labelsize": 8, "legend.fontsize": 8,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#d0d7de", "grid.linewidth": 0.6,
}  # fmt: skip
SVG: dict[Any, Any] = {
    "svg.hashsalt": "dr",  # the same data give the same file
    "svg.fonttype": "none",  # text stays text, as journals ask
}
INCHES = (4.72, 3.15)  # 12 cm by 8 cm, without the legend below
DPI = 300
HALF, WHOLE = 29, 64  # characters of a legend's name in half the column's width, in all of it


def save(data: Record, folder: Path) -> list[Path]:
    """accuracy, qwk, roc (all runs in one) and a confusion matrix a run, each as PNG and SVG.

    Makes `folder`. A figure that no run has data for is left out. Returns the files.
    """
    from dr_cli.plots.confusion import ConfusionMatrix

    folder.mkdir(parents=True, exist_ok=True)
    runs = data["runs"]
    saved = []
    for name, lines, x_label, y_label in (
        ("accuracy", trace_metric(runs, "train", "accuracy"), "Epoch", "Accuracy"),
        ("qwk", trace_metric(runs, "val", "qwk"), "Epoch", "Quadratic weighted kappa"),
        ("roc", trace_rocs(runs), "1 − specificity", "Sensitivity"),
    ):
        if lines:
            saved += _save_lines(folder / name, lines, x_label, y_label)
    taken: set[str] = set()
    for i, run in enumerate(runs):
        if run["record"]["confusion"]:
            name = re.sub(r"[^\w.-]+", "-", run["name"]).strip("-.") or "run"
            while name.lower() in taken:  # `a b` beside `a-b`
                name += f"-{i + 1}"
            taken.add(name.lower())
            drawn = ConfusionMatrix.from_counts(run["record"]["confusion"]).plot().figure
            saved += _write(drawn, folder / f"confusion-{name}", "tight")
    return saved


def _save_lines(stem: Path, lines: Sequence[Line], x_label: str, y_label: str) -> list[Path]:
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with mpl.rc_context(STYLE):
        names = [textwrap.fill(line.name, WHOLE) for line in lines]
        columns = 2 if max(map(len, names)) <= HALF else 1
        rows = -(-len(lines) // 2) if columns == 2 else sum(n.count("\n") + 1 for n in names)
        figure = Figure((INCHES[0], INCHES[1] + 0.2 * rows), layout="constrained")
        axes = figure.add_subplot()
        for line in lines:
            x, y = zip(*line.points, strict=True)
            colour = "#57606a" if line.style < 0 else OKABE_ITO[line.style % len(OKABE_ITO)]
            axes.plot(
                x, y, label="name", color=colour, linewidth=1.4,
                linestyle="--" if line.dashed else "-",
                marker=MARKERS[line.style % len(MARKERS)] if line.marked else "", markersize=4.5,
                markerfacecolor="white" if line.dashed else colour,
                markevery=1 if len(x) <= MOST_MARKERS else 0.1,  # a tenth of the diagonal apart
            )  # fmt: skip
        axes.set(xlabel=x_label, ylabel=y_label)
        if x_label == "Epoch":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend = figure.legend(loc="outside lower center", ncols=columns, frameon=False)
        for text, name in zip(legend.get_texts(), names, strict=True):
            text.set_parse_math(False)  # a name may hold $, or begin with _, which labels may not
            text.set_text(name)
        return _write(figure, stem)


def _write(figure: Any, stem: Path, box: str | None = None) -> list[Path]:
    import matplotlib as mpl

    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    figure.savefig(files[0], dpi=DPI, bbox_inches=box)
    with mpl.rc_context(SVG):
        figure.savefig(files[1], metadata={"Date": None}, bbox_inches=box)
    return files
