"""What no network is needed for: how much of a split is given away, and what copying it scores."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.grades import NUM_GRADES
from dr_cli.labels.layouts import SPLITS, TEST, TRAIN, VAL
from dr_cli.scoring import metrics
from dr_cli.scoring.both_eyes import find_fellows

if TYPE_CHECKING:
    import pandas as pd

Pair = dict[str, float | None]  # accuracy, qwk
Baselines = dict[str, Pair | None]  # majority, fellow_eye
NO_BASELINES: Baselines = {"majority": {"accuracy": None, "qwk": None}, "fellow_eye": None}


@dataclass(frozen=True)
class Leaks:
    """Which images of a split train or validation (validation's own: train) give away, [n] bool in
    the table's order."""

    fellow_eye_in_train: NDArray[np.bool_]
    """The other eye of the same patient stands there."""
    patient_in_train: NDArray[np.bool_]
    """Any image of the same patient does."""
    duplicates_across_splits: NDArray[np.bool_] | None
    """A photograph alike does; None where doubles were not looked for."""

    def count(self) -> dict[str, int | None]:
        """Images of each kind, None where that is not known."""
        masks = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: None if mask is None else int(mask.sum()) for name, mask in masks.items()}

    @property
    def any(self) -> NDArray[np.bool_]:
        """[n]: given away in any way that is known."""
        doubles = self.duplicates_across_splits
        return self.patient_in_train if doubles is None else self.patient_in_train | doubles


def find_leaks(
    table: "pd.DataFrame", duplicates: NDArray[Any] | None = None, judged: str = TEST
) -> Leaks:
    """What of the split `judged` leaks. duplicates: [len(table)] ids, -1 for an image without a
    double; None: not looked for."""
    split = table["split"].to_numpy(object)
    asked = split == judged
    known = np.isin(split, (TRAIN, VAL)) & ~asked
    patient = table["patient"].astype(object).factorize()[0]  # -1: not known
    return Leaks(
        find_fellows(table, known)[asked] >= 0,
        _shares(patient, known)[asked],
        None if duplicates is None else _shares(duplicates, known)[asked],
    )


def count_leaks(
    table: "pd.DataFrame", duplicates: NDArray[Any] | None = None, judged: str = TEST
) -> dict[str, int | None]:
    """`find_leaks`, counted."""
    return find_leaks(table, duplicates, judged).count()


def read_doubles(labels: "pd.DataFrame") -> NDArray[np.int64] | None:
    """The `duplicates` of a run's splits.csv as `find_leaks` takes them; None where a run of before
    kept none."""
    if "duplicates" not in labels:
        return None
    return labels["duplicates"].fillna(-1).to_numpy(np.int64)


def doubt_validation(usable: "pd.DataFrame") -> str | None:
    """What must be said where training images give away validation images, in one sentence."""
    leaks = find_leaks(usable, read_doubles(usable), VAL)
    if not leaks.any.any():
        return None
    return (
        f"{int(leaks.any.sum()):,} of {len(leaks.any):,} validation images show a patient, or are "
        "a duplicate of an image, that stands in train: epoch, temperature and thresholds were "
        "chosen on images that leak"
    )


def predict_baselines(table: "pd.DataFrame", split: str = TEST) -> "pd.DataFrame":
    """What needs no network predicts for each row of `split`: path, grade, majority, fellow_eye,
    copied. Empty when there is no train split; see `copy_fellow_eyes`."""
    rows = table[_select(table["split"].to_numpy(object), split)]
    majority, (predicted, copied) = majority_grade(table), copy_fellow_eyes(table, split)
    if majority is None:
        rows = rows.head(0)
    told = rows[["path", "grade"]].reset_index(drop=True)
    return told.assign(majority=majority or 0, fellow_eye=predicted, copied=copied)


def find_copies(copies: "pd.DataFrame", paths: "pd.Series") -> dict[str, NDArray[np.int64]]:
    """What each baseline of `predict_baselines` says of these images [N], in their order; empty
    where it says nothing of some of them."""
    named = copies.drop_duplicates("path").set_index("path").reindex(paths)
    if named["majority"].isna().any():
        return {}
    names = ("majority", "fellow_eye") if copies["copied"].any() else ("majority",)
    return {name: named[name].to_numpy(np.int64) for name in names}


def score_copies(copies: "pd.DataFrame") -> Baselines:
    """The figures of `predict_baselines`: of train's majority grade, and of the fellow eye's grade
    (None where no row has a fellow eye to copy). Undefined figures are None."""
    if copies.empty:
        return dict(NO_BASELINES)
    grades, copied = copies["grade"].to_numpy(np.int64), copies["copied"].any()
    said = {name: copies[name].to_numpy(np.int64) for name in ("majority", "fellow_eye")}
    return {
        "majority": score_pair(grades, said["majority"]),
        "fellow_eye": score_pair(grades, said["fellow_eye"]) if copied else None,
    }


def score_baselines(table: "pd.DataFrame", split: str = TEST) -> Baselines:
    """Figures of a split that need no network: see `predict_baselines`, `score_copies`."""
    return score_copies(predict_baselines(table, split))


def majority_grade(table: "pd.DataFrame") -> int | None:
    """Train's most frequent grade, the lower one of two; None without a train split."""
    grades = table["grade"].to_numpy()[table["split"].to_numpy(object) == TRAIN]
    return int(np.bincount(grades, minlength=NUM_GRADES).argmax()) if len(grades) else None


def score_pair(grade: NDArray[np.int64], predicted: NDArray[np.int64]) -> Pair:
    """{"accuracy", "qwk"} of [N] and [N] grades. One grade on both sides: agreement by chance is
    whole, kappa has no value and is None."""
    counts = metrics.confusion_counts(grade, predicted)
    accuracy, kappa = metrics.accuracy_of(counts), metrics.quadratic_weighted_kappa_of(counts)
    return {"accuracy": metrics.as_plain(float(accuracy)), "qwk": metrics.as_plain(float(kappa))}


def copy_fellow_eyes(
    table: "pd.DataFrame", split: str = TEST
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What copying the other eye's grade predicts for each row of `split` ("all": every row that
    has one), [n] int64 in the table's order, and where there was an eye to copy, [n] bool.

    The other eye counts where it stands in train or val, though not in the split that is judged;
    else train's majority grade is predicted. Empty when there is no train split.
    """
    majority = majority_grade(table)
    if majority is None:
        return np.zeros(0, np.int64), np.zeros(0, bool)
    stands = table["split"].to_numpy(object)
    grades = table["grade"].to_numpy().astype(np.int64)
    predicted = np.full(len(table), majority, np.int64)
    copied = np.zeros(len(table), bool)
    for judged in SPLITS:
        sources = (TRAIN, VAL) if judged == TEST else (TRAIN,)
        fellow = find_fellows(table, np.isin(stands, sources))
        mine = (stands == judged) & (fellow >= 0)
        predicted[mine] = grades[fellow[mine]]
        copied |= mine
    asked = _select(stands, split)
    return predicted[asked], copied[asked]


def _select(stands: NDArray[Any], split: str) -> NDArray[np.bool_]:
    return np.isin(stands, SPLITS) if split == "all" else stands == split


def _shares(ids: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows whose id (not -1) some row among `known` has too."""
    return np.isin(ids, ids[known]) & (ids != -1)
