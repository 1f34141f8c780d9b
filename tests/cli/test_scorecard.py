"""What `dr eval` says on a terminal of 80 columns."""

import io
import re

import pytest

from dr_cli.cli import scorecard, tables
from dr_cli.grades import GIVEN, Calibration, OperatingPoint, Threshold
from dr_cli.scoring.flat import flatten
from dr_cli.scoring.record import Context, Scoring, build_record
from tests.builders import predictions


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def show(record) -> str:
    parts = scorecard.show(record, flatten(record | {"subgroups": None, "against": []}))
    tables.print_tables(*parts, file=(text := io.StringIO()))
    return text.getvalue()


def record(rows, **context):
    point = OperatingPoint(Threshold(0.412, "youden"), Threshold(0.3, "youden"), "val of it")
    return build_record(
        rows, Context(**({"run": "it"} | context)), Calibration(None, 1.2, point), Scoring(50)
    )


def test_figures_are_said_in_words_and_none_is_cut():
    shown = show(record(predictions.table(60)))
    assert max(map(len, shown.splitlines())) <= 80
    assert "it, test: 120 images, 60 patients" in shown
    assert re.search(r"threshold +0\.412 +youden, val of it", shown)
    assert "ECE before temperature" in shown
    assert not re.search(r"\b\w+\.\w*[a-z]", shown.replace("val of it", "")), "a machine's name"


def test_no_threshold_and_a_given_one_are_told_once_and_shortly():
    rows = predictions.table(60)
    alone = rows.drop(columns=["p0", "p1", "p2", "p3", "p4"]).assign(predicted=rows["grade"])
    unchosen = Calibration(None, None, None)
    given = Calibration(None, None, OperatingPoint(Threshold(0.3, GIVEN)))
    for table, calibration, told in (
        (alone, unchosen, r"threshold +n/a +none: the predicted grade\n"),
        (rows, unchosen, r"threshold +0\.500 +not chosen on validation\n"),
        (rows, given, r"threshold +0\.300 +given by --threshold\n"),
    ):
        shown = show(build_record(table, Context("it"), calibration, Scoring(0)))
        assert re.search(told, shown), shown
        assert max(map(len, shown.partition("Screening")[0].splitlines()[2:])) <= 80


def test_baselines_are_named_where_they_are_not_known_too():
    shown = show(record(predictions.table(60)))
    assert re.search(r"copying the grade of the other eye +not known", shown)
    assert re.search(r"always the commonest grade +QWK 0\.000 +accuracy 0\.\d+", shown)


@pytest.mark.parametrize(
    ("fellow", "said"), [(0.0, "above"), (0.999, "below"), (0.85, "not told apart from")]
)
def test_the_verdict_goes_by_the_interval(fellow, said):
    pair = {"accuracy": 0.5, "qwk": fellow}
    found = record(predictions.table(60), baselines={"majority": None, "fellow_eye": pair})
    found["qwk"] = {"value": 0.85, "ci95": [0.8, 0.9]}
    (line,) = scorecard.judge(found)
    expected = f"QWK 0.850 (0.800–0.900) is {said} copying the grade of the other eye"
    assert line == f"{expected} ({fellow:.3f})."


def test_a_binary_table_shows_what_it_can_tell_alone():
    shown = show(record(predictions.binary(predictions.table(60))))
    assert "n/a" not in shown
    assert "Confusion" not in shown
    assert re.search(r"AUC +0\.\d+ +0\.", shown)


def test_confusion_is_shaded_by_the_row_and_its_headings_are_grades():
    table = scorecard.confusion_table(record(predictions.table(60)))
    assert [str(column.header) for column in table.columns] == ["true", "0", "1", "2", "3", "4"]
    assert scorecard._shade(0.0) == "dim"
    assert scorecard._shade(0.9) != scorecard._shade(0.3)


def test_an_interval_stands_below_its_figure():
    good, bad = {"value": 0.3, "ci95": [0.2, 0.4]}, {"value": -0.2431, "ci95": [-0.4321, -0.0291]}
    group = {"value": None, "n": 75, "accuracy": good, "qwk": bad, "referable": {"auc": good}}
    table = scorecard.groups_table({"column": "eye", "groups": [group]})
    tables.print_tables(table, file=(text := io.StringIO()))
    shown = text.getvalue().splitlines()
    (row,) = (k for k, line in enumerate(shown) if "not known" in line)
    assert shown[row].split() == ["not", "known", "75", "0.300", "−0.243", "0.300"]
    assert shown[row + 1].split() == ["(0.200–0.400)", "(−0.432", "to", "−0.029)", "(0.200–0.400)"]


def test_the_verdict_goes_by_the_paired_difference_where_it_is_known():
    pair = {
        "accuracy": 0.5,
        "qwk": 0.82,
        "difference": {"qwk": {"value": 0.03, "ci95": [0.01, 0.05]}},
    }
    found = record(predictions.table(60), baselines={"majority": None, "fellow_eye": pair})
    found["baselines"]["fellow_eye"] = pair
    found["qwk"] = {"value": 0.85, "ci95": [0.8, 0.9]}  # which alone would not tell them apart
    assert " is above copying" in scorecard.judge(found)[0]


def test_what_several_runs_say_has_a_table_in_words():
    spread = {"each": [{}, {}], "mean": {"qwk": 0.8, "referable.auc": 0.9}, "sd": {"qwk": 0.02}}
    spread["sd"]["referable.auc"] = None
    shown = show(record(predictions.table(60)) | {"seeds": spread})
    assert "Each of 2 seeds by itself" in shown
    assert re.search(r"QWK +0\.800 +0\.020", shown)
    assert re.search(r"Referable AUC +0\.900 +n/a", shown)
    assert "mean qwk" not in shown
