"""What a run has seen of other photographs: by path, and by pixels under other names and in other
folders."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.labels.layouts import TEST, TRAIN, VAL
from dr_cli.runs import Run
from dr_cli.scoring.baselines import Leaks, find_leaks
from dr_cli.scoring.flow import find_split

if TYPE_CHECKING:
    from dr_cli.labels.reading import Labels

PATHS_ALONE = (
    "it kept no hashes of its photographs (an earlier dr made it), so they are known again by path "
    "alone, and a copy under another name is not"
)
Look = Callable[[], NDArray[np.void]]  # the photographs' hashes, which cost a decoding


@dataclass(frozen=True)
class Seen:
    """Which photographs a run, or one that it started from, has seen before."""

    stood: NDArray[np.object_]
    """[N] "train": it learned from it; "val": its epoch, temperature and thresholds were chosen on
    it; None: neither is known."""
    by_pixels: bool
    """False where a run kept no hashes, as runs of before: then paths alone were compared."""

    def count(self, split: str) -> int:
        """How many stood in "train" or "val"."""
        return int((self.stood == split).sum())

    def to_record(self, left_out: bool) -> dict[str, Any]:
        """See `Others.seen`."""
        counts = {split: self.count(split) for split in (TRAIN, VAL)}
        by = "path and pixels" if self.by_pixels else "path"
        return {**counts, "left_out": left_out, "by": by}

    @property
    def any(self) -> NDArray[np.bool_]:
        """[N] bool: stood in either."""
        return (self.stood == TRAIN) | (self.stood == VAL)


def find_seen(run: Run, root: Path, paths: Sequence[str], look: Look) -> Seen:
    """What the run, and the runs that it started from (--weights), have seen of these photographs.

    paths: relative to root. Two photographs are one where their files are, or where
    `duplicates.match` says so. look: their hashes; it is called only where a run has kept its own.
    """
    from dr_cli.photographs import duplicates

    named = [(root.resolve() / path).as_posix() for path in paths]
    stood, hashes, by_pixels = np.full(len(paths), None, object), None, True
    for one in trace_starts(run):
        known = _read_known(one)
        kept = one.hashes(duplicates.VERSION)
        by_pixels &= kept is not None
        rows = [known.place.get(name, -1) for name in named]
        _note(stood, known.stood, np.array(rows, np.int64))
        if kept is not None and len(paths):
            hashes = look() if hashes is None else hashes
            _note(stood, known.stood, duplicates.match(hashes, kept[known.rows]))
    return Seen(stood, by_pixels)


def trace_starts(run: Run) -> Iterator[Run]:
    """The run, the one that it started from, and so on, as far as their folders are there."""
    met: set[Path] = set()
    step: Run | None = run
    while step is not None and step.folder.resolve() not in met:
        yield step
        met.add(step.folder.resolve())
        step = find_start(step.config().options.get("weights"))


def find_start(weights: str | None) -> Run | None:
    """The run that --weights names, by its folder or a file in it; None where it names none."""
    if not weights:
        return None
    path = Path(weights)
    run = Run(path if path.is_dir() else path.parent)
    return run if run["splits.csv"].is_file() and run["config.json"].is_file() else None


def join_splits(run: Run, read: "Labels") -> tuple["pd.DataFrame", int] | None:
    """The run's splits.csv with the grades that its data set has now, and how many of them differ.

    None where `read` is another data set than the run's: not the same photographs, by their paths.
    A row that cannot be used now is left out; one whose image was missing then is back.
    """
    from dr_cli.labels.reading import MISSING

    labels, paths = run.splits(), set(read.table["path"])
    if read.fingerprint != run.config().data.fingerprint:
        further = labels["path"][~labels["path"].isin(paths)]  # of --val PATH, or another data set
        if not paths <= set(labels["path"]) or not all(Path(p).is_absolute() for p in further):
            return None
    now = read.table.drop_duplicates("path").set_index("path")
    there = labels["path"].isin(now.index)
    grade = labels["path"].map(now["grade"]).where(there, labels["grade"]).astype(np.int64)
    reason = labels["path"].map(now["reason"]).astype(object)
    missing = labels["reason"] == MISSING
    reason = reason.where(there & (reason.notna() | missing), labels["reason"].astype(object))
    usable = reason.isna()
    split = find_split(labels)  # or where it would have stood
    differ = int((grade != labels["grade"])[usable & labels["reason"].isna()].sum())
    stands = {"split": split.where(usable, None), "left_out_of": split.where(~usable, None)}
    return labels.assign(grade=grade, reason=reason, **stands), differ


@dataclass(frozen=True)
class Others:
    """The rows of other data that are scored, and what stands beside their figures."""

    rows: "pd.DataFrame"
    gone: "pd.Series"
    """Of the rows left out, path -> why."""
    seen: dict[str, Any]
    """As the record has it: "train" and "val" (photographs that stood there), "left_out" (whether
    they are in no figure) and "by" ("path and pixels", or "path")."""
    warnings: tuple[str, ...]
    leaks: dict[str, int | None] | None = None
    leaking: frozenset[str] | None = None

    def mark(self, labels: "pd.DataFrame") -> "pd.DataFrame":
        """The labels with what was left out, for the flow."""
        why = labels["path"].map(self.gone).astype(object)
        reason = labels["reason"].astype(object)
        return labels.assign(reason=reason.where(reason.notna() | why.isna(), why))


def leave_out_seen(
    run: Run, read: "Labels", rows: "pd.DataFrame", keep: bool, look: Look
) -> Others:
    """The rows of another data set less those that stood in the run's train or val.

    keep: leave them in, and say so. Raises UsageError where nothing is left.
    """
    seen = find_seen(run, read.root, rows["path"].tolist(), look)
    stood, known = seen.any, seen.to_record(left_out=not keep)
    told = [_tell(run, seen, keep)] if stood.any() else []
    if not seen.by_pixels:
        told.append(f"{run.folder}: {PATHS_ALONE}")
    if keep:
        return Others(rows, rows["path"].head(0), known, tuple(told))
    if stood.all():
        raise UsageError(
            f"{read.source}: {told[0]}, and nothing is left; --split all scores them all the same"
        )
    why = pd.Series(seen.stood[stood], rows["path"][stood]).map("stood in {} of the run".format)
    rows = rows[~stood].reset_index(drop=True)
    leaks = _find_patients(run, read, rows)
    if leaks is None:
        return Others(rows, why, known, tuple(told))
    count = leaks.count() | {"duplicates_across_splits": 0 if seen.by_pixels else None}
    return Others(rows, why, known, tuple(told), count, frozenset(rows["path"][leaks.any]))


def recall(
    run: Run, rows: "pd.DataFrame", differ: int, keep: bool
) -> tuple[dict[str, Any] | None, list[str]]:
    """What is said of the run's own photographs: how many labels differ now, and, where train may
    be among them (keep), how many were trained on."""
    told = []
    if differ:
        told.append(
            f"grades that are not those that {run.name} was made with: {differ:,}; its splits are "
            "kept, and figures are by the grades of now"
        )
    if not keep:
        return None, told
    folded = bool(run.folds())  # each image was in most folds' train
    stood = np.full(len(rows), TRAIN, object) if folded else rows["split"].to_numpy(object)
    seen = Seen(stood, by_pixels=False)
    return seen.to_record(left_out=False), [
        *told,
        *([_tell(run, seen, True)] if seen.any.any() else []),
    ]


def _tell(run: Run, seen: Seen, keep: bool) -> str:
    train, val, n = seen.count(TRAIN), seen.count(VAL), len(seen.stood)
    text = f"{train:,} of these {n:,} photographs stood in train and {val:,} in val of {run.name}"
    return f"{text}: these figures are optimistic" if keep else f"{text}: they are left out"


def _find_patients(run: Run, read: "Labels", rows: "pd.DataFrame") -> Leaks | None:
    """Whose patients train and val know; None in another folder, where a name is another's."""
    if read.root.resolve() != Path(run.config().data.root):
        return None
    labels = run.splits()
    known = labels[labels["split"].isin((TRAIN, VAL))]
    return find_leaks(pd.concat([known, rows.assign(split=TEST)], ignore_index=True))


@dataclass(frozen=True)
class _Known:
    """The photographs that a run has seen: absolute path -> which, "train" before "val"."""

    rows: NDArray[np.int64]  # [M] of splits.csv
    stood: NDArray[np.object_]  # [M]
    place: dict[str, int]


def _read_known(run: Run) -> _Known:
    labels, config = run.splits(), run.config()
    split = labels["split"].astype(object)
    if run.folds():  # of a cross-validation: each image was in most folds' train
        split = split.where(split.isna(), TRAIN)
    elif config.picked_on_test:
        split = split.replace(TEST, VAL)
    rows = np.concatenate([np.flatnonzero(split == which) for which in (TRAIN, VAL)])
    root = Path(config.data.root)
    names = [(root / path).as_posix() for path in labels["path"].iloc[rows]]
    place = {name: i for i, name in reversed(list(enumerate(names)))}
    return _Known(rows, split.to_numpy(object)[rows], place)


def _note(stood: NDArray[np.object_], known: NDArray[np.object_], rows: NDArray[np.int64]) -> None:
    """Writes into `stood` where each matched row (-1: none) stood; "train" stays "train"."""
    found = (rows >= 0) & (stood != TRAIN)
    stood[found] = known[rows[found]]
