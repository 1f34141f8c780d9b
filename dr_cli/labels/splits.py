"""Who may stand in which split: patients stay whole, grades stay balanced, leaks are counted.

A *group* is what must not be torn apart: the images of one patient, together with their
duplicates. An image whose patient is not known is a group of its own. Which groups go where
depends on the seed and on a hash of each group's names alone, never on the order of rows or
files: the same data set gives the same split on every machine, and a few images more or less
leave most others where they were.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli import randomness
from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES
from dr_cli.labels.layouts import DEFAULT_VAL, SPLITS, TEST, TRAIN, VAL
from dr_cli.labels.reading import MISSING
from dr_cli.photographs.duplicates import connect

DEFAULT_TEST = 0.2  # by patient, where the data set has no test split to take the share from

# Streams of `randomness`: the order of groups for folds and validation, and for a test split. One
# stream for both made the validation of seed s the test of seed s + 1, for 99% of its images.
_ORDER, _TEST = 101, 102


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
    whole = number_groups(table, groups)
    if split_by == "patient":
        share = float((split == TEST).sum()) / max(int(use.sum()), 1) or DEFAULT_TEST
        split[use] = TRAIN
        leave = 2  # for train and val
        split[_draw(table, whole, use, share, seed, leave, _TEST)] = TEST
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
    whole = number_groups(table, groups)
    available = len(np.unique(whole[use]))
    if not 2 <= k <= available:
        raise UsageError(
            f"--folds {k}: from 2 to the number of patients and single images, {available}"
        )
    strata = _Strata(table[use], whole[use], seed)
    dealt = np.zeros(strata.groups, np.int64)
    load, size = np.zeros((k, NUM_GRADES)), np.zeros(k)
    # Each stratum is dealt out like cards, first to the fold that has least of its grades so far.
    for members, profile in strata:
        need = np.lexsort((np.arange(k), size, np.round(load @ (strata.weight * profile), 9)))
        dealt[members] = need[np.arange(len(members)) % k]
        given = np.bincount(dealt[members], minlength=k)
        load += given[:, None] * profile
        size += given * profile.sum()
    fold = np.full(len(table), -1, np.int64)
    fold[use] = dealt[strata.group]
    return table.assign(fold=fold)


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


def number_groups(table: pd.DataFrame, groups: NDArray[Any] | None = None) -> NDArray[np.int64]:
    """[N] int64: rows of one patient, and rows of one id in `groups`, have the same number,
    however long the chain between them."""
    patient = pd.factorize(table["patient"].astype(object))[0].astype(np.int64)
    alone = patient < 0
    patient[alone] = patient.max(initial=-1) + 1 + np.arange(alone.sum())
    if groups is None:
        return patient
    # A graph with two kinds of nodes, patients and duplicate groups; each row is an edge.
    other = pd.factorize(np.asarray(groups))[0]
    n, m = int(patient.max(initial=-1)) + 1, int(other.max(initial=-1)) + 1
    return connect(n + m, np.stack([patient, n + other], axis=1))[patient]


def _draw(
    table: pd.DataFrame,
    whole: NDArray[np.int64],
    pool: Any,
    fraction: float,
    seed: int,
    leave: int = 1,
    stream: int = _ORDER,
) -> NDArray[np.int64]:
    """Row positions of a part of `pool` with about `fraction` of its images and of each grade.

    Groups with the same grades (a stratum) are exchangeable. Strata are gone through from the
    rarest to the most frequent, and from each as many groups are taken as bring the grades taken
    so far nearest to their share of those seen so far: what rounding leaves in one stratum, the
    next makes good. At least one group is taken and, where there are so many, `leave` are left.
    """
    rows = np.flatnonzero(pool)
    strata = _Strata(table.iloc[rows], whole[rows], seed, stream)
    if strata.groups < 2:
        raise UsageError(
            f"{len(rows)} images of {strata.groups} patient(s) to take a split from: at least 2"
            " patients (or single images) are needed; give --val PATH or --val test"
        )
    taken = np.zeros(strata.groups, bool)
    seen, got = np.zeros(NUM_GRADES), np.zeros(NUM_GRADES)
    for members, profile in strata:
        seen += profile * len(members)
        share = strata.weight * profile
        want = (share * (fraction * seen - got)).sum() / (strata.weight * profile**2).sum()
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


class _Strata:
    """The groups of a table, those with the same number of images of each grade together.

    group: [N] int64, each row's group in [0, groups); counts: [groups, grades] images; weight:
    [grades] float, what one image counts, the less the more there are of its grade; by_order: the
    groups in an order drawn from the seed and their names. Iterating gives (members of a stratum
    in that order, its counts [grades] float), rare strata first.
    """

    def __init__(
        self, table: pd.DataFrame, whole: NDArray[np.int64], seed: int, stream: int = _ORDER
    ) -> None:
        _, self.group = np.unique(whole, return_inverse=True)
        self.groups = int(self.group.max(initial=-1)) + 1
        self.counts = np.zeros((self.groups, NUM_GRADES), np.int64)
        np.add.at(self.counts, (self.group, table["grade"].to_numpy().astype(np.int64)), 1)
        self.weight = 1.0 / np.maximum(self.counts.sum(axis=0), 1)
        # A row's name is its patient, else its path. `pandas.util.hash_array` (SipHash with a
        # fixed key) gives the same number on every platform; a test holds some.
        names = table["patient"].where(table["patient"].notna(), table["path"])
        hashes = pd.util.hash_array(names.to_numpy(object), categorize=False)
        lowest = np.full(self.groups, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(lowest, self.group, hashes)
        drawn = randomness.uniform(seed, stream, 0, lowest, 1)[:, 0]
        self.by_order = np.lexsort((lowest, drawn))

    def __iter__(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
        profiles, stratum = np.unique(self.counts, axis=0, return_inverse=True)
        stratum = stratum.ravel()[self.by_order]
        sizes = np.bincount(stratum)
        members = np.split(self.by_order[np.argsort(stratum, kind="stable")], np.cumsum(sizes)[:-1])
        for s in np.argsort(sizes, kind="stable"):
            yield members[s], profiles[s].astype(float)


def _usable(table: pd.DataFrame, include_missing: bool = False) -> NDArray[np.bool_]:
    missing = table["reason"] == MISSING
    return (table["reason"].isna() | (missing & include_missing)).to_numpy(bool)
