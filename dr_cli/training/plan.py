"""All that is decided before the first step: who stands where, at which size, in which batches."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli import device, words
from dr_cli.dataset.dataset import FundusDataset, measured_size
from dr_cli.errors import DrError, UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.labels import splits
from dr_cli.labels.columns import Columns
from dr_cli.labels.layouts import DEFAULT_VAL
from dr_cli.labels.reading import Labels, leave_out, need_images
from dr_cli.labels.reading import read as read_labels
from dr_cli.network.together import SHARED_BELOW
from dr_cli.photographs.crop import Preprocessing
from dr_cli.ranks import ALONE, Ranks
from dr_cli.runs import FURTHER
from dr_cli.sample import named
from dr_cli.scoring.both_eyes import find_fellows
from dr_cli.scoring.overlap import PATHS_ALONE, find_seen, find_start
from dr_cli.training import audit
from dr_cli.training.config import TrainConfig, number
from dr_cli.training.teacher import Start

LOST = "lost while it trained"  # a reason in splits.csv, with why it cannot be read


@dataclass(frozen=True)
class Plan:
    """All that is decided before the first step."""

    config: TrainConfig  # nothing in it is None that a run needs
    labels: Labels
    inspection: audit.Inspection  # what decoding the labels' photographs showed
    table: pd.DataFrame  # every row of the data set with its split, or the reason for none
    rows: pd.DataFrame  # those that can be used, in the order of `dataset`
    dataset: FundusDataset
    processor: device.Processor
    fold: int | None = None  # the one that is held out, from 1
    drawn_start: Start | None = None  # of --start drawn
    start: dict[str, int] | None = None  # what --weights has seen of it: see `runs.RunConfig.start`
    ranks: Ranks = ALONE  # the processes that train this network

    def placed(self, split: str) -> NDArray[np.int64]:
        """Which rows of `dataset` were placed in a split, ascending; with `--val test` val is
        test."""
        if split == "val" and self.config.val == "test":
            split = "test"
        return np.flatnonzero(self.rows["split"].to_numpy() == split)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Those of `placed` that can still be read, so far as is known."""
        placed = self.placed(split)
        return placed[np.isin(placed, self.dataset.readable)] if self.dataset.lost() else placed

    def grades(self, split: str) -> NDArray[np.int64]:
        """The grades of `indices(split)`."""
        return self.rows["grade"].to_numpy(np.int64)[self.indices(split)]

    @property
    def member(self) -> str | None:
        """Its folder in a run made of runs: fold-1, seed-0; None of a run alone."""
        if self.fold is not None:
            return f"fold-{self.fold}"
        return f"seed-{self.config.seed}" if self.config.seeds else None

    @property
    def evaluated(self) -> list[str]:
        """The splits that are predicted each epoch."""
        return [split for split in ("val", "test") if len(self.placed(split))]

    @property
    def batch_size(self) -> int:
        """Photographs a step."""
        assert self.config.batch_size is not None
        return self.config.batch_size

    @property
    def steps(self) -> int:
        """Steps of an epoch, whether begun or gone on with; a last batch that leaves a process
        with less than `least` takes none."""
        whole, rest = divmod(len(self.placed("train")), self.batch_size)
        return max(1, whole + (rest >= max(2, self.ranks.count * self.least)))

    @property
    def largest(self) -> int:
        """Photographs of its largest batch."""
        return min(self.batch_size, len(self.placed("train")))

    @property
    def shares_statistics(self) -> bool:
        """Whether norms take their statistics from what all processes hold."""
        return not self.ranks.alone and self.largest < SHARED_BELOW * self.ranks.count

    @property
    def least(self) -> int:
        """Photographs that a process must have for a step: a single one has no batch statistics of
        its own, and none nothing to share."""
        return 1 if self.shares_statistics else min(2, self.batch_size)

    def among(self, ranks: Ranks) -> "Plan":
        """The same for processes that train its network together. Raises UsageError where no batch
        has a photograph for each."""
        if not ranks.alone and self.largest < ranks.count:
            raise UsageError(
                f"{ranks.count} processes cannot share batches of "
                f"{words.count(self.largest, 'photograph')}: start fewer, or give a larger "
                "--batch-size"
            )
        return replace(self, ranks=ranks)

    def check_lost(self) -> None:
        """Raises DrError where more photographs became unreadable than --max-bad allows."""
        lost, most = self.dataset.lost(), self.config.max_bad
        if lost > most * len(self.rows):
            path, why = self.dataset.failed[0]
            raise DrError(
                f"{lost:,} of {words.count(len(self.rows), 'photograph')} can be read no more, "
                f"such as {path} ({why}); --max-bad {most:g} allows no more: put them back"
            )

    def tell_lost(self) -> pd.DataFrame:
        """`table` as it is now: a photograph that was lost has no split, but a reason, and
        `left_out_of` says where it stood."""
        table = self.table.copy()
        why = table["path"].map(dict(self.dataset.failed))
        lost = why.notna() & table["reason"].isna()
        table.loc[lost, "left_out_of"] = table.loc[lost, "split"]
        table.loc[lost, "reason"] = f"{LOST}: " + why[lost].astype(object)
        table.loc[lost, "split"] = None
        return table


def make_plans(
    config: TrainConfig,
    labels: Labels,
    processor: device.Processor,
    *,
    workers: int | None = None,
    cache: bool = True,
    begun: pd.DataFrame | None = None,
    way: Preprocessing | None = None,
    observer: Observer = NOTHING,
) -> list[Plan]:
    """The plan of a run; with `folds` one for each part that is held out as test, with `seeds`
    one for each seed, all on the split of the first.

    Looks at every photograph once, splits the data, fills the crop cache, decides every `auto`.
    cache: False leaves the crops unmade, for a dry run. begun: splits.csv of a run that is gone
    on with, whose rows stay where they stood, and way what its pixels went through. Raises
    UsageError where what is left cannot be trained on, or begun is of other rows.
    """
    config = replace(config, lr=config.learning_rate)
    if config.weights:
        config = replace(config, weights=str(Path(config.weights).resolve()))
    if config.val != "test" and number(config.val) is None:
        if not named.is_named(config.val):
            config = replace(config, val=str(Path(config.val).resolve()))
        labels = _with_validation(labels, Path(config.val), observer)
    need_images(labels)
    inspection = audit.inspect(labels, workers=workers, observer=observer)
    if begun is None:
        table = leave_out(labels.table, inspection.failed)
    else:
        table = _stand_as_begun(labels, begun)
    usable = table[table["reason"].isna()]
    if usable.empty:
        raise UsageError(f"{labels.root}: not one of {len(table)} labelled images can be used")
    if config.size is None:
        config = replace(config, size=measured_size(labels.root, usable["path"]))
        observer.note(f"size {config.size} px: never larger than the photographs, at most 512")
    assert config.size is not None
    paths, grades = usable["path"], usable["grade"]
    way = way or Preprocessing(size=config.size, illumination=config.illumination)
    dataset = FundusDataset(
        labels.root, paths, grades, way, cache=cache, observer=observer, workers=workers
    )
    plans = []
    for fold in range(1, config.folds + 1) if config.folds else [None]:
        if begun is None:
            table = assign_splits(config, labels, inspection, fold)
        rows = table[table["reason"].isna()].reset_index(drop=True)
        plan = Plan(config, labels, inspection, table, rows, dataset, processor, fold)
        _check_splits(plan)
        batch_size = config.batch_size or _choose_batch_size(plan)
        plans.append(replace(plan, config=replace(config, batch_size=batch_size)))
    plans = _check_start(plans, observer)
    return _spread_seeds(plans[0]) if config.seeds else plans


def _stand_as_begun(labels: Labels, begun: pd.DataFrame) -> pd.DataFrame:
    """The label table with the splits that a run began with; what was lost stands where it stood:
    whether it can be read again is seen when it is."""
    if begun["path"].tolist() != labels.table["path"].tolist():
        raise UsageError(f"{labels.root}: other photographs than the run began with: train anew")
    begun = begun.reindex(columns=[*begun.columns, *(set(FURTHER) - set(begun.columns))])
    lost = _is_lost(begun)
    return labels.table.assign(
        split=where_it_stood(begun),
        reason=begun["reason"].where(~lost, None).astype(object),
        left_out_of=begun["left_out_of"].where(~lost, None).astype(object),
        duplicates=begun["duplicates"],
    )


def where_it_stood(table: pd.DataFrame) -> "pd.Series[Any]":
    """The split of each row of a splits.csv, of what was lost the one that it was lost from."""
    return table["split"].where(~_is_lost(table), table.get("left_out_of")).astype(object)


def _is_lost(table: pd.DataFrame) -> "pd.Series[bool]":
    return table["reason"].astype(object).str.startswith(LOST, na=False)


def _spread_seeds(plan: Plan) -> list[Plan]:
    """The plan for each seed from its own on: the split stays, what is drawn later differs."""
    return [
        replace(plan, config=replace(plan.config, seed=seed)) for seed in plan.config.list_seeds()
    ]


def assign_splits(
    config: TrainConfig, labels: Labels, inspection: audit.Inspection, fold: int | None = None
) -> pd.DataFrame:
    """The label table with every usable row's split, as the options want it (`splits.assign`):
    patients and doubles together, unreadable images left out. fold: the one held out as test.

    Of labels alone, every row that has a grade counts. `left_out_of` and `duplicates` as
    `runs.Run.splits` says.
    """
    table = leave_out(labels.table, inspection.failed)
    if fold is not None and config.folds is not None:
        parts = splits.folds(labels.table, config.folds, config.seed, inspection.near)["fold"]
        held = pd.Series(parts.to_numpy() == fold - 1).map({True: "test", False: None})
        table = table.assign(split=held.astype(object))
    share = number(config.val)
    table = splits.assign(
        table,
        val="test" if config.val == "test" else DEFAULT_VAL if share is None else share,
        seed=config.seed,
        split_by=config.split_by,
        groups=inspection.near,
        include_missing=labels.images_found == 0,
    )
    named = labels.table["split"]
    if config.val == "test":
        named = named.replace("val", "train")
    if fold is not None or config.split_by == "patient":  # a row left out was never drawn
        named = pd.Series([None] * len(table), dtype=object)
    left = table["reason"].notna()
    return table.assign(
        left_out_of=named.where(left, None).astype(object),
        duplicates=audit.name_doubles(inspection),
    )


def _with_validation(labels: Labels, val: Path, observer: Observer) -> Labels:
    """With --val PATH: the labels, and that data set's rows as validation."""
    same = Columns(grade_map=labels.columns.grade_map)
    other = read_labels(val, columns=same, observer=observer)
    need_images(other)
    more = other.table.copy()
    more["path"] = [(other.root.resolve() / path).as_posix() for path in more["path"]]
    more["split"] = "val"  # of those that are left out, too: they would have stood there
    own = {(labels.root.resolve() / path).as_posix() for path in labels.table["path"]}
    if shared := int(more["path"].isin(own).sum()):
        raise UsageError(
            f"--val {val}: {shared:,} of its photographs are in the data set itself: "
            "leave them out of one of the two"
        )
    kept = labels.table.copy()
    kept.loc[kept["split"] == "val", "split"] = "train"
    return replace(labels, table=pd.concat([kept, more], ignore_index=True))


def _check_splits(plan: Plan) -> None:
    """UsageError where nothing can be learned, or no epoch be told from another."""
    root = plan.labels.root
    grades = set(plan.grades("train").tolist())
    if len(grades) < 2:
        held = f"grade {grades.pop()} alone" if grades else "no image"
        need = "at least two grades are needed to learn from"
        raise UsageError(f"{root}: the training split holds {held}: {need}")
    if plan.config.both_eyes and (find_fellows(plan.rows.iloc[plan.indices("val")]) < 0).all():
        raise UsageError(
            f"{root}: --both-eyes needs validation patients of whom both eyes are known: give "
            "--patient-column, or leave it out"
        )
    if not plan.evaluated:
        raise UsageError(f"{root}: neither validation nor test images: give --val")


def _check_start(plans: list[Plan], observer: Observer) -> list[Plan]:
    """The plans, with what the run that --weights names has seen of their test and validation.

    Raises UsageError where it has seen images that are judged now, unless --allow-overlap.
    """
    first = plans[0]
    start = find_start(first.config.weights)
    if start is None:
        if first.config.weights:
            observer.note(
                "whether --weights has seen these photographs is not known: no run has it"
            )
        return plans
    paths, hashes = first.table["path"].tolist(), first.inspection.hashes
    seen = find_seen(start, first.labels.root, paths, lambda: hashes)
    if not seen.by_pixels:
        observer.warning(f"--weights {start.folder}: {PATHS_ALONE}")
    # A test image counts that it learned from or was chosen on, a validation image that it
    # learned from.
    counted = {"test": seen.any, "val": seen.stood == "train"}
    known = {
        split: [int(mask[plan.table["split"] == split].sum()) for plan in plans]
        for split, mask in counted.items()
    }
    for split in ("test", "val"):
        images = sum(len(plan.indices(split)) for plan in plans)
        if not (met := sum(known[split])):
            continue
        text = f"--weights {start.folder}: it has seen {met:,} of the {images:,} {split} images"
        judged = split == "test" or "test" not in plans[0].evaluated
        if judged and not first.config.allow_overlap:
            raise UsageError(
                f"{text} in its own training: take another start, or --allow-overlap, and the "
                "record says so"
            )
        spoilt = "their figures are" if judged else "what is chosen on them is"
        observer.warning(f"{text} in its own training: {spoilt} optimistic")
    return [
        replace(plan, start={split: counts[k] for split, counts in known.items()})
        for k, plan in enumerate(plans)
    ]


def _choose_batch_size(plan: Plan) -> int:
    """64 on a GPU, 16 on a CPU; fewer where an epoch would have less than 32 steps.

    On 384 drawn eyes 8 a step reached a validation QWK of 0.9 in ten epochs of AdamW.
    """
    most = 16 if plan.processor.device.type == "cpu" else 64
    few = 2 ** int(math.log2(max(4, len(plan.indices("train")) / 32)))
    return min(most, few)
