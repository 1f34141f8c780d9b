"""ConfusionMatrix: counting (numpy alone) apart from drawing (seaborn, imported on use)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dr_cli import markup
from dr_cli.grades import NAMES, NUM_GRADES
from dr_cli.writing import whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ConfusionMatrix:
    """How often each true grade (row) was called each grade (column).

    >>> matrix = ConfusionMatrix()
    >>> matrix.update([0, 0, 2], [0, 1, 2])
    >>> matrix.accuracy
    0.6666666666666666
    """

    counts: NDArray[np.int64]  # [K, K], rows true, columns predicted

    def __init__(self, num_classes: int = NUM_GRADES, names: Sequence[str] | None = None) -> None:
        """names: K of them; by default the grades' own where K is 5, else 0 to K - 1."""
        if names is None:
            names = NAMES if num_classes == NUM_GRADES else [str(i) for i in range(num_classes)]
        if len(names) != num_classes:
            raise ValueError(f"{len(names)} names for {num_classes} grades")
        self.names = tuple(names)
        self.counts = np.zeros((num_classes, num_classes), np.int64)

    @classmethod
    def from_predictions(
        cls,
        true: ArrayLike,
        predicted: ArrayLike,
        num_classes: int = NUM_GRADES,
        names: Sequence[str] | None = None,
    ) -> "ConfusionMatrix":
        """The matrix of two columns [N] of grades in 0..K-1."""
        matrix = cls(num_classes, names)
        matrix.update(true, predicted)
        return matrix

    @classmethod
    def from_counts(
        cls, counts: ArrayLike, names: Sequence[str] | None = None
    ) -> "ConfusionMatrix":
        """The matrix of counts [K, K], rows true, such as `dr eval` prints."""
        counts = np.asarray(counts, np.int64)
        matrix = cls(len(counts), names)
        matrix.counts += counts
        return matrix

    def update(self, true: ArrayLike, predicted: ArrayLike) -> None:
        """Count a batch: two columns [N] of grades in 0..K-1. ValueError for anything else."""
        true, predicted = np.ravel(np.asarray(true)), np.ravel(np.asarray(predicted))
        if true.shape != predicted.shape:
            raise ValueError(f"{len(true)} true grades, but {len(predicted)} predicted ones")
        for column in (true, predicted):
            outside = ~np.isin(column, np.arange(len(self.counts)))
            if outside.any():
                raise ValueError(f"{column[outside][0]} is no grade of 0-{len(self.counts) - 1}")
        np.add.at(self.counts, (true.astype(np.int64), predicted.astype(np.int64)), 1)

    @property
    def accuracy(self) -> float:
        """Share of images on the diagonal; NaN without images."""
        total = self.counts.sum()
        return float(self.counts.trace() / total) if total else float("nan")

    def row_percentages(self) -> NDArray[np.float64]:
        """[K, K] in [0, 100]: how each true grade's images were called; NaN rows without any."""
        rows = self.counts.sum(axis=1, keepdims=True)
        empty = np.full(self.counts.shape, np.nan)
        return np.divide(100 * self.counts, rows, out=empty, where=rows > 0)

    def cell_texts(self) -> NDArray[np.object_]:
        """[K, K] of "count\\nshare of the row"; a share that rounds to nothing says so."""
        texts = np.empty(self.counts.shape, object)
        for cell, percent in np.ndenumerate(self.row_percentages()):
            texts[cell] = f"{self.counts[cell]:,}\n{_percent(percent)}"
        return texts

    def __repr__(self) -> str:
        return f"ConfusionMatrix.from_counts({self.counts.tolist()}, {self.names})"

    def _repr_html_(self) -> str:
        """The counts as a table, a darker cell being a larger share of its row."""
        shares = np.nan_to_num(self.row_percentages()) / 100
        rows = zip(self.names, self.counts, shares, self.counts.sum(axis=1), strict=True)
        body = ([name, *map(markup.shade, map("{:,}".format, row), share), f"{n:,}"]
                for name, row, share, n in rows)  # fmt: skip
        return markup.table(("true \\ predicted", *self.names, "images"), body)

    def plot(self, ax: "Axes | None" = None, title: str | None = None) -> "Axes":
        """Draw on `ax`, or on a new figure of a size that fits; no pyplot state is touched.

        Rows are true grades, columns predicted ones; darker is a larger share of the row, from
        0 to 100%, so that two matrices compare by eye. Every cell has its count and its share,
        in black or white, whichever stands out from the cell. Blues is one hue from light to
        dark: told apart by any colour vision, and in print.
        """
        import seaborn
        from matplotlib.figure import Figure

        if ax is None:
            size = (len(self.names) + 3.2, len(self.names) + 1.2)  # inches
            ax = Figure(size, layout="constrained").subplots()
        images = self.counts.sum(axis=1)
        with seaborn.axes_style("white"):
            seaborn.heatmap(
                np.nan_to_num(self.row_percentages()),
                annot=self.cell_texts(),
                fmt="",
                vmin=0,
                vmax=100,
                cmap="Blues",
                square=True,
                linewidths=1,
                linecolor="#b8c4d0",  # cells stay visible where their share is nothing
                cbar_kws={"label": "% of the true grade's images"},
                xticklabels=self.names,
                yticklabels=[f"{k}\nn = {n:,}" for k, n in zip(self.names, images, strict=True)],
                ax=ax,
            )
        _contrast_texts(ax)
        ax.tick_params(axis="y", rotation=0, left=False)
        ax.tick_params(axis="x", bottom=False)
        ax.set(xlabel="Predicted grade", ylabel="True grade", title=title or "")
        return ax

    def save(self, path: str | Path, title: str | None = None, dpi: int = 150) -> Path:
        """Draw into a file (PNG, SVG, PDF by its name): whole or not at all. WriteError where its
        folder is not there or cannot be written to."""
        path = Path(path)
        figure: Any = self.plot(title=title).figure
        with whole(path) as aside:
            figure.savefig(aside, dpi=dpi, bbox_inches="tight")  # the layout cuts "True grade"
        return path


def _percent(value: float) -> str:
    if np.isnan(value):
        return "–"
    if 0 < value < 0.1:
        return "<0.1%"
    if 99.9 < value < 100:
        return ">99.9%"
    return f"{value:.1f}%"


def _contrast_texts(ax: "Axes") -> None:
    """Black or white, whichever stands out: seaborn's own switch, at a luminance of 0.408, writes
    white on mid blue at 3:1."""
    cells = np.array(ax.collections[0].get_facecolor())[:, :3]  # [K * K, 3] in [0, 1], row by row
    for text, luminance in zip(ax.texts, markup.luminance(cells), strict=True):
        text.set_color("black" if luminance > markup.DARK_TEXT_ABOVE else "white")
