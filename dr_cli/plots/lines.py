"""curves.png: accuracy and loss against epoch, as a run leaves them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dr_cli.writing import whole

_LINES = {
    "train": ("#0072B2", "-", "o"),
    "val": ("#E69F00", "--", "s"),
    "test": ("#009E73", ":", "^"),
}


def save(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draws the rows of metrics.csv: accuracy, loss and QWK, a line a split (Okabe-Ito colours)."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    for axes, what in zip(figure.subplots(1, 3), ("accuracy", "qwk", "loss"), strict=True):
        for split, (colour, line, marker) in _LINES.items():
            points = [(row["epoch"], row.get(f"{split}_{what}")) for row in rows]
            points = [point for point in points if point[1] is not None]
            if points:
                axes.plot(
                    *zip(*points, strict=True), line, color=colour, marker=marker, label=split
                )
        axes.set_title("QWK" if what == "qwk" else what.capitalize())
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    with whole(path) as aside:
        figure.savefig(aside, dpi=120)
