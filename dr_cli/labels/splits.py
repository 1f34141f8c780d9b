"""Who may stand in which split: patients stay whole, grades stay balanced, leaks are counted.

A *group* is what must not be torn apart: the images of one patient, together with their
duplicates. An image whose patient is not known is a group of its own. Which groups go where
depends on the seed and on a hash of each group's names alone, never on the order of rows or
files: the same data set gives the same split on every machine, and a few images more or less
leave most others where they were.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli import randomness
from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES
from dr_cli.labels.layouts import DEFAULT_VAL, SPLITS, TEST, TRAIN, VAL
from dr_cli.labels.reading import MISSING

DEFAULT_TEST = 0.2  # by patient, where the data set has no test split to take the share from

_STREAM = 101  # of `randomness`: the order of groups


def assign(
    table: pd.DataFrame,
    *,
    val: float | str = DEFAULT_VAL,
    seed: int = 0,
    split_by: str = "dataset",
    groups: NDArray[Any] | None = None,
    include_missing: bool = False,
) -> pd.DataFrame:
    """The table with every usable row's split decided: "train", "val" or "test".

    val: the fraction of train's images, in (0, 1), that become validation where the data set
    brings none; or "test": no validation split, its rows go to train. split_by: "dataset" keeps
    the data set's own test and validation split, "patient" makes new ones by patient, test as
    large as the data set's own, else 20% (`groups` count as patients there too).
    groups: [len(table)] ids; rows of one id (duplicates) are kept together; None: no duplicates.
    include_missing: rows whose image is missing count as usable (labels alone).
    Rows that are left out have no split. Raises UsageError where val cannot be had.
    """
    use = _usable(table, include_missing)
    split = table["split"].to_numpy(object, copy=True)
    split[~use] = None
    split[use & pd.isna(split)] = TRAIN
    whole = group_ids(table, groups)
    if split_by == "patient":
        share = float((split == TEST).sum()) / max(int(use.sum()), 1) or DEFAULT_TEST
        split[use] = TRAIN
        split[_draw(table, whole, use, share, seed, leave=2)] = TEST  # for train and val
    elif split_by != "dataset":
        raise UsageError(f"--split-by {split_by}: give dataset or patient")
    if val == TEST:
        split[split == VAL] = TRAIN
        if not (split == TEST).any():
            raise UsageError("--val test: the data set has no test split; give a fraction")
    elif not isinstance(val, int | float) or not 0 < val < 1:
        raise UsageError(f"--val {val}: give a fraction between 0 and 1, a path, or test")
    elif not (split == VAL).any():
        split[_draw(table, whole, split == TRAIN, float(val), seed + 1)] = VAL
    return table.assign(split=pd.Series(split, index=table.index, dtype=object))


def folds(
    table: pd.DataFrame, k: int, seed: int = 0, groups: NDArray[Any] | None = None
) -> pd.DataFrame:
    """The table with a column `fold`, int64 in [0, k): each group whole, each grade spread evenly.

    Every usable row gets one, whatever its split; left-out rows get -1. Raises UsageError when k
    is below 2 or above the number of groups.
    """
    use = _usable(table)
    whole = group_ids(table, groups)
    available = len(np.unique(whole[use]))
    if not 2 <= k <= available:
        raise UsageError(
            f"--folds {k}: from 2 to the number of patients and single images, {available}"
        )
    fold = np.full(len(table), -1, np.int64)
    fold[use] = _deal(table[use], whole[use], k, seed)
    return table.assign(fold=fold)


def leaks(
    table: pd.DataFrame, duplicates: NDArray[Any] | None = None, judged: str = TEST
) -> dict[str, int]:
    """Images of the split `judged` that train or validation give away.

    `fellow_eye_in_train`: the other eye of the same patient stands in train or val;
    `patient_in_train`: any image of the same patient does; `duplicates_across_splits`: an image
    of the same id in `duplicates` ([len(table)], None: not looked for) does.
    """
    split = table["split"].to_numpy(object)
    asked = split == judged
    known = _in(split, (TRAIN, VAL)) & ~asked
    patient, eye = _codes(table["patient"]), _codes(table["eye"])
    return {
        "fellow_eye_in_train": int((_fellow_rows(patient, eye, known)[asked] >= 0).sum()),
        "patient_in_train": int(_shares(patient, known)[asked].sum()),
        "duplicates_across_splits": 0
        if duplicates is None
        else int(_shares(np.asarray(duplicates), known)[asked].sum()),
    }


def majority_grade(table: pd.DataFrame) -> int | None:
    """Train's most frequent grade, the lower one of two; None without a train split."""
    grades = table["grade"].to_numpy()[table["split"].to_numpy(object) == TRAIN]
    return int(np.bincount(grades, minlength=NUM_GRADES).argmax()) if len(grades) else None


def fellow_eye_prediction(table: pd.DataFrame, split: str = TEST) -> NDArray[np.int64]:
    """What copying the other eye's grade predicts for each row of `split` ("all": every row that
    has one), [n] int64, in the table's order.

    The other eye counts where it stands in train or val, though not in the split that is judged;
    else train's majority grade is predicted. Empty when there is no train split.
    """
    predicted, _ = _fellow_eye(table, split)
    return predicted


def baselines(table: pd.DataFrame, split: str = TEST) -> dict[str, dict[str, float | None] | None]:
    """Figures that need no network: {"majority": {"accuracy", "qwk"}, "fellow_eye": {...}}.

    Always train's majority grade, and the fellow eye's grade (`fellow_eye_prediction`; None
    where no row of the split has a fellow eye to copy). Undefined figures are None.
    """
    grades = table["grade"].to_numpy()[_asked(table, split)].astype(np.int64)
    majority = majority_grade(table)
    if majority is None or not len(grades):
        return {"majority": {"accuracy": None, "qwk": None}, "fellow_eye": None}
    predicted, copied = _fellow_eye(table, split)
    return {
        "majority": _figures(grades, np.full(len(grades), majority)),
        "fellow_eye": _figures(grades, predicted) if copied else None,
    }


def summary(table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """{split: {"n", "patients", "grade_counts"}} of the splits there are; patients None where
    not a single one is known (an image without patient counts as one, otherwise)."""
    found: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        rows = table[table["split"].to_numpy(object) == split]
        if len(rows):
            patients = rows["patient"]
            unknown = int(patients.isna().sum())
            found[split] = {
                "n": len(rows),
                "patients": None if unknown == len(rows) else int(patients.nunique()) + unknown,
                "grade_counts": np.bincount(rows["grade"], minlength=NUM_GRADES).tolist(),
            }
    return found


def group_ids(table: pd.DataFrame, groups: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """[N] int64: rows of one patient, and rows of one id in `groups`, have the same number,
    however long the chain between them."""
    patient = _codes(table["patient"])
    alone = patient < 0
    patient[alone] = patient.max(initial=-1) + 1 + np.arange(alone.sum())
    if groups is None:
        return patient
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

    # A graph with two kinds of nodes, patients and duplicate groups; each row is an edge.
    other = pd.factorize(np.asarray(groups))[0]
    n, m = int(patient.max(initial=-1)) + 1, int(other.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(table), bool), (patient, n + other)), shape=(n + m, n + m))
    _, component = connected_components(graph, directed=False)
    return component[patient].astype(np.int64)


# --- fellow eyes --------------------------------------------------------------------------------


def _fellow_eye(table: pd.DataFrame, split: str) -> tuple[NDArray[np.int64], int]:
    """The prediction, and how many rows had an eye to copy."""
    asked = _asked(table, split)
    majority = majority_grade(table)
    if majority is None:
        return np.zeros(0, np.int64), 0
    stands = table["split"].to_numpy(object)
    grades = table["grade"].to_numpy().astype(np.int64)
    patient, eye = _codes(table["patient"]), _codes(table["eye"])
    predicted = np.full(len(table), majority, np.int64)
    copied = np.zeros(len(table), bool)
    for judged in SPLITS:
        sources = (TRAIN,) if judged != TEST else (TRAIN, VAL)
        fellow = _fellow_rows(patient, eye, _in(stands, sources))
        mine = asked & (stands == judged) & (fellow >= 0)
        predicted[mine] = grades[fellow[mine]]
        copied |= mine
    return predicted[asked], int(copied.sum())


def _fellow_rows(
    patient: NDArray[np.int64], eye: NDArray[np.int64], known: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """For each row, the first row among `known` that shows the patient's other eye; -1: none.

    patient, eye: codes, -1 unknown. Without an eye no row has a fellow.
    """
    sides = int(eye.max(initial=0)) + 1
    usable = (patient >= 0) & (eye >= 0)
    fellow = np.full(len(patient), -1, np.int64)
    source = np.flatnonzero(known & usable)
    if sides < 2 or not len(source):
        return fellow
    keys, first = np.unique(patient[source] * sides + eye[source], return_index=True)
    for side in range(sides):
        rows = np.flatnonzero(usable & (eye != side) & (fellow < 0))
        wanted = patient[rows] * sides + side
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hit = keys[place] == wanted
        fellow[rows[hit]] = source[first[place[hit]]]
    return fellow


def _figures(grades: NDArray[np.int64], predicted: NDArray[np.int64]) -> dict[str, float | None]:
    from sklearn.metrics import cohen_kappa_score

    both = np.union1d(grades, predicted)
    # One grade on both sides: agreement by chance is whole, kappa has no value.
    qwk = cohen_kappa_score(grades, predicted, weights="quadratic") if len(both) > 1 else None
    return {"accuracy": float((grades == predicted).mean()), "qwk": qwk and float(qwk)}


# --- who goes where -----------------------------------------------------------------------------


def _draw(
    table: pd.DataFrame,
    whole: NDArray[np.int64],
    pool: Any,
    fraction: float,
    seed: int,
    leave: int = 1,
) -> NDArray[np.int64]:
    """Row positions of a part of `pool` with about `fraction` of its images and of each grade.

    Groups with the same grades (a stratum) are exchangeable. Strata are gone through from the
    rarest to the most frequent, and from each as many groups are taken as bring the grades taken
    so far nearest to their share of those seen so far: what rounding leaves in one stratum, the
    next makes good. At least one group is taken and, where there are so many, `leave` are left.
    """
    rows = np.flatnonzero(pool)
    strata = _Strata(table.iloc[rows], whole[rows], seed)
    if strata.groups < 2:
        raise UsageError(
            f"{len(rows)} images of {strata.groups} patient(s) to take a split from: at least 2"
            " patients (or single images) are needed; give --val PATH or --val test"
        )
    weight = 1.0 / np.maximum(strata.counts.sum(axis=0), 1)
    taken = np.zeros(strata.groups, bool)
    seen, got = np.zeros(NUM_GRADES), np.zeros(NUM_GRADES)
    for members, profile in strata:
        seen += profile * len(members)
        want = (weight * profile * (fraction * seen - got)).sum() / (weight * profile**2).sum()
        number = int(np.clip(np.floor(want + 0.5), 0, len(members)))
        taken[members[:number]] = True
        got += profile * number
    _keep_each_grade(strata, taken)
    _keep_some(strata, taken, leave)
    return rows[taken[strata.group]]


def _keep_each_grade(strata: "_Strata", taken: NDArray[np.bool_]) -> None:
    """A grade of two groups or more stands on both sides, if only with one: a validation split
    without a grade cannot choose for it."""
    holds = strata.counts > 0  # [groups, grades]
    for grade in np.argsort(holds.sum(axis=0), kind="stable"):
        with_it = strata.by_order[holds[strata.by_order, grade]]
        if len(with_it) < 2:
            continue
        if not taken[with_it].any():
            taken[with_it[0]] = True
        elif taken[with_it].all():
            taken[with_it[-1]] = False


def _keep_some(strata: "_Strata", taken: NDArray[np.bool_], leave: int) -> None:
    """At least one group is taken, and `leave` are left if there are more than that."""
    if not taken.any():
        taken[strata.by_order[0]] = True
    surplus = int(taken.sum()) - max(1, strata.groups - leave)
    if surplus > 0:
        taken[strata.by_order[taken[strata.by_order]][-surplus:]] = False


def _deal(table: pd.DataFrame, whole: NDArray[np.int64], k: int, seed: int) -> NDArray[np.int64]:
    """[N] the fold of each row: each stratum is dealt out like cards, first to the fold that has
    least of its grades so far."""
    strata = _Strata(table, whole, seed)
    weight = 1.0 / np.maximum(strata.counts.sum(axis=0), 1)
    fold = np.zeros(strata.groups, np.int64)
    load = np.zeros((k, NUM_GRADES))
    size = np.zeros(k)
    for members, profile in strata:
        need = np.lexsort((np.arange(k), size, np.round(load @ (weight * profile), 9)))
        turn = np.arange(len(members)) % k
        fold[members] = need[turn]
        given = np.bincount(need[turn], minlength=k)
        load += given[:, None] * profile
        size += given * profile.sum()
    return fold[strata.group]


class _Strata:
    """The groups of a table, those with the same number of images of each grade together.

    group: [N] int64, each row's group in [0, groups); counts: [groups, grades] images; by_order:
    the groups in an order drawn from the seed and their names. Iterating gives (members of a
    stratum in that order, its counts [grades] float), rare strata first.
    """

    def __init__(self, table: pd.DataFrame, whole: NDArray[np.int64], seed: int) -> None:
        _, self.group = np.unique(whole, return_inverse=True)
        self.groups = int(self.group.max(initial=-1)) + 1
        self.counts = np.zeros((self.groups, NUM_GRADES), np.int64)
        np.add.at(self.counts, (self.group, table["grade"].to_numpy().astype(np.int64)), 1)
        self.by_order = _order(table, self.group, self.groups, seed)

    def __iter__(self) -> Any:
        profiles, stratum = np.unique(self.counts, axis=0, return_inverse=True)
        stratum = stratum.ravel()
        ordered = stratum[self.by_order]
        members = self.by_order[np.argsort(ordered, kind="stable")]
        sizes = np.bincount(ordered, minlength=len(profiles))
        starts = np.concatenate([[0], np.cumsum(sizes)])
        for s in np.argsort(sizes, kind="stable"):
            yield members[starts[s] : starts[s + 1]], profiles[s].astype(float)


def _order(
    table: pd.DataFrame, group: NDArray[np.int64], groups: int, seed: int
) -> NDArray[np.int64]:
    """A permutation of the groups, [groups] int64, from the seed and the hash of their names.

    A row's name is its patient, else its path. `pandas.util.hash_array` (SipHash with a fixed
    key) gives the same number on every platform; a test holds some.
    """
    names = table["patient"].where(table["patient"].notna(), table["path"]).astype(object)
    hashes = pd.util.hash_array(names.to_numpy(object), categorize=False)
    lowest = np.full(groups, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(lowest, group, hashes)
    return np.lexsort((lowest, randomness.uniform(seed, _STREAM, 0, lowest, 1)[:, 0]))


def _usable(table: pd.DataFrame, include_missing: bool = False) -> NDArray[np.bool_]:
    missing = table["reason"] == MISSING
    return (table["reason"].isna() | (missing & include_missing)).to_numpy(bool)


def _asked(table: pd.DataFrame, split: str) -> NDArray[np.bool_]:
    stands = table["split"].to_numpy(object)
    return _in(stands, SPLITS) if split == "all" else stands == split


def _in(split: NDArray[Any], wanted: Sequence[str]) -> NDArray[np.bool_]:
    return np.any([split == one for one in wanted], axis=0)


def _codes(column: pd.Series) -> NDArray[np.int64]:
    """Small integers for equal values, -1 for unknown."""
    return pd.factorize(column.astype(object))[0].astype(np.int64)


def _shares(ids: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rows whose id (not -1) some row among `known` has too."""
    return np.isin(ids, ids[known]) & (ids != -1)
