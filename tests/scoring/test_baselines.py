"""Leaks counted row by row; baselines against scikit-learn and the course's own figures."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from sklearn.metrics import accuracy_score, cohen_kappa_score

from dr_cli.errors import UsageError
from dr_cli.labels import reading, splits
from dr_cli.scoring.baselines import (
    copy_fellow_eyes,
    count_leaks,
    majority_grade,
    score_baselines,
    score_pair,
)
from tests.labels.test_splits import LAWFUL, frame, tables


def test_the_courses_leak_and_its_fellow_eye_baseline(shared: Path) -> None:
    """The course's figures, whatever part of train becomes validation."""
    table = reading.read(shared / "data" / "dlp").table
    for val, seed in itertools.product((0.15, 0.4, "test"), (0, 1)):
        after = splits.assign(table, val=val, seed=seed, include_missing=True)
        assert count_leaks(after)["fellow_eye_in_train"] == 5618
        figures = score_baselines(after)
        fellow, majority = figures["fellow_eye"], figures["majority"]
        assert fellow is not None
        assert majority is not None
        assert fellow["accuracy"] == pytest.approx(0.847, abs=5e-4)
        assert fellow["qwk"] == pytest.approx(0.723, abs=5e-4)
        assert majority["accuracy"] == pytest.approx(5154 / 7026)
        assert majority["qwk"] == 0
    clean = splits.assign(table, split_by="patient", include_missing=True)
    assert count_leaks(clean)["fellow_eye_in_train"] == 0
    assert score_baselines(clean)["fellow_eye"] is None


@LAWFUL
@given(tables())
def test_leaks_and_baselines_row_by_row(made: tuple[pd.DataFrame, np.ndarray]) -> None:
    """Against the definitions, written as loops."""
    table, groups = made
    try:
        table = splits.assign(table, val=0.3)
    except UsageError:
        return
    rows = list(table.itertuples())
    known = [row for row in rows if row.split in ("train", "val")]
    test = [row for row in rows if row.split == "test"]

    def fellows(row: tuple) -> list:
        return [
            other
            for other in known
            if row.patient and other.patient == row.patient
            and {row.eye, other.eye} == {"left", "right"}
        ]  # fmt: skip

    assert count_leaks(table, groups) == {
        "fellow_eye_in_train": sum(bool(fellows(row)) for row in test),
        "patient_in_train": sum(
            any(row.patient and other.patient == row.patient for other in known) for row in test
        ),
        "duplicates_across_splits": sum(
            any(groups[other.Index] == groups[row.Index] for other in known) for row in test
        ),
    }
    majority = majority_grade(table)
    trained = [row.grade for row in known if row.split == "train"]
    assert majority == min(set(trained), key=lambda grade: (-trained.count(grade), grade))
    wanted = [fellows(row)[0].grade if fellows(row) else majority for row in test]
    assert copy_fellow_eyes(table)[0].tolist() == wanted
    figures = score_baselines(table)
    grades = [row.grade for row in test]
    if not test:
        assert figures == {"majority": {"accuracy": None, "qwk": None}, "fellow_eye": None}
        return
    for name, predicted in (("majority", [majority] * len(test)), ("fellow_eye", wanted)):
        figure = figures[name]
        if name == "fellow_eye" and not any(fellows(row) for row in test):
            assert figure is None
            continue
        assert figure is not None
        assert figure["accuracy"] == pytest.approx(accuracy_score(grades, predicted))
        if len({*grades, *predicted}) > 1:
            kappa = cohen_kappa_score(grades, predicted, weights="quadratic", labels=range(5))
            assert figure["qwk"] == pytest.approx(kappa)
        else:
            assert figure["qwk"] is None


def test_the_judged_split_never_judges_itself() -> None:
    """Two eyes in val: neither tells the other's grade. In train, the other eye does."""
    table = frame(
        grade=[0, 0, 0, 3, 3, 2, 1],
        patient=["a", "a", "b", "c", "c", "d", "d"],
        eye=["left", "right", "left", "left", "right", "left", "right"],
        split=["train", "train", "train", "val", "val", "train", "test"],
    )
    assert copy_fellow_eyes(table, "val")[0].tolist() == [0, 0]
    assert copy_fellow_eyes(table, "train")[0].tolist() == [0, 0, 0, 0]
    assert copy_fellow_eyes(table, "test")[0].tolist() == [2]
    assert copy_fellow_eyes(table, "all")[0].tolist() == [0, 0, 0, 0, 0, 0, 2]
    assert score_baselines(table, "val")["fellow_eye"] is None


def test_grades_that_nobody_gave_keep_their_place_on_the_scale() -> None:
    """0 and 4 are four grades apart, whether or not any image is of 1, 2 or 3."""
    grade, predicted = np.array([0, 0, 2, 4, 4, 4]), np.array([0, 2, 2, 4, 0, 4])
    kappa = cohen_kappa_score(grade, predicted, weights="quadratic", labels=range(5))
    assert score_pair(grade, predicted) == {"accuracy": 4 / 6, "qwk": pytest.approx(kappa)}
    assert score_pair(grade[:2], grade[:2]) == {"accuracy": 1.0, "qwk": None}
