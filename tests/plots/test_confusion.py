"""Counting and drawing, each tested alone."""

import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from dr_cli.plots.confusion import ConfusionMatrix

COURSE = [
    [5149, 5, 0, 0, 0],
    [300, 180, 8, 0, 0],
    [400, 90, 500, 90, 2],
    [0, 0, 0, 0, 0],
    [5, 2, 30, 40, 50],
]


def test_rows_are_true_and_columns_predicted():
    matrix = ConfusionMatrix()
    matrix.update([0, 0, 4], [0, 3, 4])
    matrix.update(np.array([0]), np.array([3]))
    assert matrix.counts.dtype == np.int64
    assert matrix.counts[0, 3] == 2
    assert matrix.counts[3, 0] == 0
    assert matrix.counts.sum() == 4
    assert matrix.accuracy == 0.5
    assert (
        ConfusionMatrix.from_predictions([0, 0, 4, 0], [0, 3, 4, 3]).counts == matrix.counts
    ).all()
    assert (ConfusionMatrix.from_counts(matrix.counts).counts == matrix.counts).all()


@pytest.mark.parametrize(
    ("true", "predicted"),
    [([0, 5], [0, 0]), ([0, 1], [0, -1]), ([0], [0.5]), ([0], [np.nan]), ([0, 1], [0])],
)
def test_what_is_no_grade_is_refused_and_not_counted(true, predicted):
    matrix = ConfusionMatrix()
    with pytest.raises(ValueError, match="grade"):
        matrix.update(true, predicted)
    assert matrix.counts.sum() == 0


def test_percentages_are_of_rows_and_nan_where_there_are_no_images():
    percent = ConfusionMatrix.from_counts(COURSE).row_percentages()
    assert percent[2, 2] == pytest.approx(100 * 500 / 1082)
    assert percent[[0, 1, 2, 4]].sum(axis=1) == pytest.approx(100)
    assert np.isnan(percent[3]).all()
    assert np.isnan(ConfusionMatrix().accuracy)


def test_names_fit_the_number_of_grades():
    assert ConfusionMatrix().names[4] == "Proliferative DR"
    assert ConfusionMatrix(3).names == ("0", "1", "2")
    with pytest.raises(ValueError, match="2 names for 3 grades"):
        ConfusionMatrix(3, ["a", "b"])


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("counts", [COURSE, [[90, 10], [45, 55]], np.arange(144).reshape(12, 12)])
def test_every_cell_shows_its_count_and_share_in_readable_colour(counts):
    from matplotlib.colors import to_rgb

    matrix = ConfusionMatrix.from_counts(counts)
    size = len(matrix.counts)
    axes = matrix.plot()
    cells = axes.collections[0].get_facecolors()
    assert len(axes.texts) == size**2
    for text in axes.texts:
        column, row = (int(x) for x in text.get_position())  # drawn in the cell's middle
        count, share = text.get_text().split("\n")
        assert count == f"{matrix.counts[row, column]:,}"
        percent = matrix.row_percentages()[row, column]
        if np.isnan(percent):
            assert share == "–"
        elif not share.startswith(("<", ">")):
            assert float(share[:-1]) == pytest.approx(percent, abs=0.051)
        ink, cell = luminance(to_rgb(text.get_color())), luminance(cells[row * size + column])
        contrast = (max(ink, cell) + 0.05) / (min(ink, cell) + 0.05)
        assert contrast >= 4.5  # WCAG 2.2, level AA
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # true grade 0 is the top row
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Predicted grade", "True grade")


def test_a_small_share_is_never_shown_as_nothing():
    texts = ConfusionMatrix.from_counts([[20_000, 1], [0, 7]]).cell_texts()
    assert texts[0, 0] == "20,000\n>99.9%"
    assert texts[0, 1] == "1\n<0.1%"
    assert texts[1, 0] == "0\n0.0%"


def test_darker_is_more():
    axes = ConfusionMatrix.from_counts([[90, 10], [45, 55]]).plot()
    light = [luminance(c) for c in axes.collections[0].get_facecolors()]
    assert light[0] < light[3] < light[2] < light[1]


def test_saving_draws_a_picture_and_leaves_nothing_else(tmp_path):
    import matplotlib.pyplot as plt

    path = ConfusionMatrix.from_counts(COURSE).save(tmp_path / "confusion.png", title="test")
    with Image.open(path) as picture:
        assert min(picture.size) > 600
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 50
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.png"]
    assert plt.get_fignums() == []
    before = path.read_bytes()
    with pytest.raises(ValueError, match="nonsense"):
        ConfusionMatrix().save(tmp_path / "confusion.nonsense")
    assert [p.name for p in tmp_path.iterdir()] == ["confusion.png"]
    assert path.read_bytes() == before


def test_drawing_on_given_axes_touches_no_other_figure():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert ConfusionMatrix.from_counts(COURSE).plot(axes, title="mine") is axes
    assert axes.get_title() == "mine"


def test_counting_needs_numpy_alone():
    code = (
        "import sys; from dr_cli.plots.confusion import ConfusionMatrix as C; "
        "C.from_predictions([0], [1]).row_percentages(); "
        "print({'pandas', 'matplotlib', 'seaborn', 'sklearn', 'torch'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_a_notebook_shows_counts_shaded_by_their_share_of_the_row():
    matrix = ConfusionMatrix.from_counts([[1500, 0], [0, 0]], ["<b>no</b>", "yes"])
    html = matrix._repr_html_()
    assert "&lt;b&gt;no&lt;/b&gt;" in html
    assert "<b>" not in html
    cells = re.findall(r"background:#(\w+);color:(\w+)[^>]*>([\d,]+)<", html)
    assert cells == [
        ("08306b", "white", "1,500"), ("f7fbff", "black", "0"), ("f7fbff", "black", "0"),
        ("f7fbff", "black", "0"),
    ]  # fmt: skip
    assert repr(matrix) == "ConfusionMatrix.from_counts([[1500, 0], [0, 0]], ('<b>no</b>', 'yes'))"
