"""curves.png: accuracy and loss against epoch, as a run leaves them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dr_cli.writing import whole

# Okabe and Ito's palette (2008): told apart by every common colour vision.
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P")
_LINES = {
    "train": {"color": OKABE_ITO[0], "linestyle": "-", "marker": MARKERS[0]},
    "val": {"color": OKABE_ITO[4], "linestyle": "--", "marker": MARKERS[1]},
    "test": {"color": OKABE_ITO[2], "linestyle": ":", "marker": MARKERS[2]},
}


def save(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the rows of metrics.csv: accuracy, loss and QWK, a line a split (Okabe-Ito colours)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, what in zip(figure.subplots(1, 3), ("accuracy", "qwk", "loss"), strict=True):
        for split, style in _LINES.items():
            points = [(row["epoch"], row.get(f"{split}_{what}")) for row in rows]
            points = [point for point in points if point[1] is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=split, **style)
        axes.set(title="QWK" if what == "qwk" else what.capitalize(), xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    with whole(path) as aside:
        figure.savefig(aside, dpi=120)
