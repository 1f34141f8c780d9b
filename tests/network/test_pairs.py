"""Fellow eyes brought together: the worst eye, referable or not, gradable or not."""

import numpy as np
import pytest

from dr_cli.errors import UsageError
from dr_cli.grades import Calibration, Fellow
from dr_cli.labels.columns import Columns
from dr_cli.labels.owners import by_name, read_owners
from dr_cli.network.pairs import OWNER, TOGETHER, Pairs
from dr_cli.network.records import Record
from dr_cli.network.telling import FIELDS

EMPTY = dict.fromkeys((*FIELDS, *OWNER))


def record(path, predicted, probability, gradable=True, reason="", probabilities=None):
    return Record(
        EMPTY,
        path=path,
        probabilities=probabilities,
        predicted=predicted,
        referable=probability >= 0.5,
        referable_probability=probability,
        gradable=gradable,
        reason=reason,
    )


def failed(path):
    return Record(EMPTY, path=path, error="no such file")


def judge(*records, whose=by_name):
    pairs = Pairs(whose)
    own = [pairs.own(one, (None, None)) for one in records]
    return own, list(pairs.rows(EMPTY))


def test_a_patient_is_as_bad_as_the_worst_eye():
    own, (one, other) = judge(
        record("d/7_left.jpg", 1, 0.2), record("d/8_R.jpg", 0, 0.1), record("d/7_OD.jpg", 3, 0.9)
    )
    assert [(each["patient"], each["eye"]) for each in own] == [
        ("d/7", "left"), ("d/8", "right"), ("d/7", "right"),
    ]  # fmt: skip
    assert (one["path"], one["patient"], one["eye"]) == (None, "d/7", "right")
    assert (one["predicted"], one["name"], one["referable"]) == (3, "Severe", True)
    assert (one["referable_probability"], one["gradable"], one["note"]) == (0.9, True, "")
    assert (other["predicted"], other["gradable"]) == (0, True)
    assert other["note"] == "the right eye alone was given"
    assert list(one) == list(own[0])


def test_eyes_of_a_run_of_both_hear_each_other():
    """The right eye, by itself a 1, is a 3 beside a left one that is surely a 3."""
    joint = (np.eye(5) * 0.19 + 0.002) / (np.eye(5) * 0.19 + 0.002).sum()
    fellow = Fellow(tuple(map(tuple, joint.tolist())), 1.0)
    sure, torn = [0, 0, 0.02, 0.96, 0.02], [0, 0.5, 0.05, 0.45, 0]
    shown = [
        record("7_left.jpg", 3, 1.0, probabilities=sure),
        record("7_right.jpg", 1, 0.5, probabilities=torn),
    ]
    pairs = Pairs(by_name, Calibration(fellow=fellow), 0.6)
    for one in shown:
        pairs.own(one, (None, None))
    (told,) = pairs.rows(EMPTY)
    both = fellow.join([torn], [sure])[0]
    assert both.argmax() == 3
    assert (told["predicted"], told["note"]) == (3, TOGETHER)
    assert told["referable_probability"] >= round(float(both[2:].sum()), 6)
    alone = Pairs(by_name, Calibration(fellow=fellow), 0.6)
    alone.own(shown[0], (None, None))
    alone.own(record("7_right.jpg", 1, 0.5, False, "blurred", torn), (None, None))
    assert next(alone.rows(EMPTY))["note"] != TOGETHER


def test_an_eye_is_gradable_where_one_of_its_photographs_is():
    _, (one,) = judge(
        record("7_left.jpg", 4, 0.9, gradable=False, reason="blurred"),
        record("7_left.png", 1, 0.2),
        record("7_right.jpg", 0, 0.1),
    )
    assert (one["gradable"], one["reason"], one["predicted"]) == (True, "", 1)


def test_an_eye_without_a_gradable_photograph_makes_a_patient_ungradable():
    _, (one,) = judge(record("7_left.jpg", 1, 0.6), failed("7_right.jpg"))
    assert (one["gradable"], one["reason"], one["referable"]) == (
        False,
        "right eye: not read",
        True,
    )
    _, (one,) = judge(record("7_left.jpg", 2, 0.7, False, "too dark"), failed("7_right.jpg"))
    assert (one["predicted"], one["referable"], one["error"]) == (2, True, None)
    assert one["reason"] == "left eye: too dark; right eye: not read"
    _, (one,) = judge(failed("7_left.jpg"), failed("7_right.jpg"))
    assert one["error"] == "none of this patient's 2 photographs could be graded"
    assert one["predicted"] is None


def test_where_nobody_knows_the_eye_each_photograph_counts_as_one():
    _, (one,) = judge(
        record("a.jpg", 1, 0.1),
        record("b.jpg", 0, 0.1, False, "blurred"),
        whose=lambda path: ("P", None),
    )
    assert (one["gradable"], one["reason"]) == (False, "an eye: blurred")


def test_the_table_counts_before_the_file_and_the_file_before_the_name():
    pairs = Pairs(lambda path: ("table", None) if path == "7_left.jpg" else (None, None))
    first = pairs.own(record("7_left.jpg", 0, 0), ("P-17", "right"))
    second = pairs.own(record("8_left.jpg", 0, 0), ("P-17", None))
    third = pairs.own(record("photo.jpg", 0, 0), (None, None))
    assert [(each["patient"], each["eye"]) for each in (first, second, third)] == [
        ("table", "right"), ("P-17", "left"), (None, None),
    ]  # fmt: skip
    assert list(pairs.patients) == ["table", "P-17"]


def test_equal_names_in_other_folders_are_other_people():
    assert by_name("monday/1_L.jpg") == ("monday/1", "left")
    assert by_name("tuesday/1_R.jpg") == ("tuesday/1", "right")
    assert by_name("photo.jpg") == (None, None)


def test_a_table_tells_by_as_much_of_a_name_as_it_gives(tmp_path):
    (tmp_path / "t.csv").write_text(
        "image,patient_id,laterality\na.jpg,P1,OD\nx/b,P2,left eye\ny/b,P3,R\nc.png,,L\n"
    )
    whose = read_owners(tmp_path / "t.csv", Columns())
    assert whose("clinic/a.png") == ("P1", "right")
    assert whose("/data/x/b.jpg") == ("P2", "left")
    assert whose("b.jpg") == (None, None)  # of two patients
    assert whose("c.png") == (None, "left")
    assert whose("d.png") == (None, None)
    with pytest.raises(UsageError, match=r"no column of patients.*--patient-column"):
        read_owners_of(tmp_path, "image,grade\na,1\n")
    read_owners_of(tmp_path, "photo,who\na,1\n", image="photo", patient="who")


def read_owners_of(folder, text, **columns):
    (folder / "u.csv").write_text(text)
    return read_owners(folder / "u.csv", Columns(**columns))
