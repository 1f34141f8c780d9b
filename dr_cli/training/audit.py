"""What a data set really holds: every photograph decoded, doubles and leaks counted.

`inspect` decodes, `plan.assign_splits` decides who stands where, `describe` says it: what
`dr train --dry-run` prints.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli.events import NOTHING, Observer
from dr_cli.labels import splits
from dr_cli.labels.layouts import SPLITS, TEST, VAL
from dr_cli.labels.reading import MISSING, UNREADABLE, Labels, count_reasons
from dr_cli.photographs import duplicates
from dr_cli.scoring.baselines import count_leaks, score_baselines


@dataclass(frozen=True)
class Inspection:
    """What decoding showed, a value a row of the label table.

    exact, near: [N] int64, the same number for doubles (`duplicates.Duplicates`), a number of
    its own for every other row; sizes: [N, 2] int64 width and height, 0 where not read; failed:
    path -> why it cannot be read; hashes: [N] `duplicates.HASH`, zeros where not read.
    """

    exact: NDArray[np.int64]
    near: NDArray[np.int64]
    sizes: NDArray[np.int64]
    failed: dict[str, str]
    hashes: NDArray[np.void]

    @property
    def looked(self) -> bool:
        """Whether there was a photograph to look at: of labels alone nobody knows doubles."""
        return bool(self.sizes.any())


def inspect(
    labels: Labels, *, workers: int | None = None, observer: Observer = NOTHING
) -> Inspection:
    """Decode every image that can be used, in parallel (progress goes to the observer)."""
    table = labels.table
    rows = np.flatnonzero(table["reason"].isna())
    paths = table["path"].iloc[rows].tolist()
    found = duplicates.find(labels.root, paths, workers=workers, observer=observer)
    sizes = np.zeros((len(table), 2), np.int64)
    sizes[rows] = found.sizes
    exact, near = (_spread(ids, rows, len(table)) for ids in (found.exact, found.near))
    hashes = np.zeros(len(table), duplicates.HASH)
    hashes[rows] = found.hashes
    return Inspection(exact, near, sizes, found.failed, hashes)


def describe(labels: Labels, table: pd.DataFrame, seen: Inspection) -> dict[str, Any]:
    """The record of `dr train --dry-run --format json`, but for its `plan`.

    table: from `plan.assign_splits`. Beyond the fields that README's interface names: `notes`,
    `fingerprint`, `eyes` {"left", "right", "unknown"}, `sizes` {"width", "height": [least, median,
    most]} or None, `judged_on` (the split of baselines and leaks: test, else val),
    `validation_leaks` (as `leaks`, of validation images in train; None without validation),
    `duplicates.conflicts` (paths and grades of each group), `first_missing` (a path, or None).
    Counts of duplicates are None where no photograph was looked at.
    """
    stands = table["split"].to_numpy(object)
    missing = (table["reason"] == MISSING).to_numpy(bool)
    unreadable = table["reason"].astype(object).str.startswith(f"{UNREADABLE}: ", na=False)
    judged = TEST if (stands == TEST).any() else VAL
    near = seen.near if seen.looked else None
    return {
        "layout": labels.layout,
        "root": str(labels.root),
        "rows": len(table),
        "images_found": int((~missing).sum()),
        "images_missing": int(missing.sum()),
        "first_missing": str(table["path"][np.argmax(missing)]) if missing.any() else None,
        "left_out": count_reasons(table),
        "splits": splits.summary(table),
        "eyes": {side: int((table["eye"] == side).sum()) for side in ("left", "right")}
        | {"unknown": int(table["eye"].isna().sum())},
        "sizes": _sizes(seen.sizes),
        "leaks": count_leaks(table, near, judged),
        "validation_leaks": count_leaks(table, near, VAL) if (stands == VAL).any() else None,
        "duplicates": _doubles(table, seen),
        "unreadable": [
            {"path": path, "reason": reason.partition(": ")[2]}
            for path, reason in table.loc[unreadable, ["path", "reason"]].itertuples(index=False)
        ],
        "baselines": score_baselines(table, judged),
        "judged_on": judged,
        "fingerprint": labels.fingerprint,
        "notes": list(labels.notes),
    }


def problems(record: dict[str, Any]) -> Iterator[str]:
    """What a person should know before training, a sentence each; none when all is well."""
    doubles, judged, inner = record["duplicates"], record["judged_on"], record["validation_leaks"]
    images = f"{record['rows']:,} images"
    if missing := record["images_missing"]:
        yield f"{missing:,} of {images} are missing (the first is {record['first_missing']})"
    if unreadable := record["unreadable"]:
        first = "{path}: {reason}".format(**unreadable[0])
        yield f"{len(unreadable):,} of {images} cannot be read (the first is {first})"
    yield from _tell_leaks(record["leaks"], record["splits"], judged)
    if judged == TEST and inner:
        yield from _tell_leaks(inner, record["splits"], VAL)
    if groups := doubles["conflicting_groups"]:
        first = doubles["conflicts"][0]
        told = zip(first["paths"], first["grades"], strict=True)
        pairs = ", ".join(f"{path} ({grade})" for path, grade in told)
        yield f"duplicates with conflicting grades: {groups:,} groups (such as {pairs})"
    for split in SPLITS:
        counts = record["splits"].get(split, {"grade_counts": []})["grade_counts"]
        if absent := [str(grade) for grade, n in enumerate(counts) if not n]:
            yield f"{split} holds no image of grade {', '.join(absent)}"


def _tell_leaks(leaks: dict[str, int | None], counts: dict[str, Any], judged: str) -> Iterator[str]:
    of = f"of {counts.get(judged, {'n': 0})['n']:,} {judged} images"
    others = "train or val" if judged == TEST else "train"
    remedy = "(--split-by patient makes a clean split)"
    if eyes := leaks["fellow_eye_in_train"]:
        harm = "copying its grade is no skill"
        yield f"{eyes:,} {of} have their fellow eye in {others}: {harm} {remedy}"
    elif known := leaks["patient_in_train"]:
        yield f"{known:,} {of} show a patient who stands in {others} too {remedy}"
    if copies := leaks["duplicates_across_splits"]:
        yield f"{copies:,} {of} have a duplicate in {others}"


def name_doubles(seen: Inspection) -> pd.Series:
    """[N] Int64: the same number for photographs alike, missing for one that has no double."""
    numbers, counts = np.unique(seen.near, return_inverse=True, return_counts=True)[1:]
    return pd.Series(numbers, dtype="Int64").where(counts[numbers] > 1)


def _spread(ids: NDArray[np.int64], rows: NDArray[np.intp], count: int) -> NDArray[np.int64]:
    """Numbers of some rows -> numbers of all, the others on their own."""
    everyone = int(ids.max(initial=-1)) + 1 + np.arange(count, dtype=np.int64)
    everyone[rows] = ids
    return everyone


def _sizes(sizes: NDArray[np.int64]) -> dict[str, list[int]] | None:
    read = sizes[sizes.any(axis=1)]
    if not len(read):
        return None
    three = np.percentile(read, [0, 50, 100], axis=0, method="nearest").astype(int)
    return {"width": three[:, 0].tolist(), "height": three[:, 1].tolist()}


def _doubles(table: pd.DataFrame, seen: Inspection) -> dict[str, Any]:
    """Groups of identical pixels; groups that hold photographs alike but not identical; groups of
    either kind whose grades differ. None where no photograph was looked at."""
    if not seen.looked:
        groups = ("exact_groups", "near_groups", "conflicting_groups")
        return dict.fromkeys(groups) | {"conflicts": []}
    grades = table["grade"].to_numpy()
    differ = duplicates.conflicts(seen.near, grades)
    unlike = np.unique(np.stack([seen.near, seen.exact], axis=1), axis=0)
    return {
        "exact_groups": duplicates.count(seen.exact),
        "near_groups": int((np.bincount(unlike[:, 0], minlength=1) > 1).sum()),
        "conflicting_groups": len(differ),
        "conflicts": [
            {"paths": table["path"].iloc[rows].tolist(), "grades": grades[rows].tolist()}
            for rows in differ
        ],
    }
