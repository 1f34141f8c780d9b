"""Run folders -> one plain dictionary, which every form of the report is made of.

Lists, dictionaries, strings, finite numbers and None, nothing else: it is what
`dr report --format json` prints. Only files of the run folders are read; no network is run.
Without pictures the dictionary itself holds no file name, no patient and no path of the data, so
that every form of it is fit to share.
"""

import math
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import UndefinedError

from dr_cli import __version__
from dr_cli.errors import DrError, UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.labels import splits
from dr_cli.report import command, curves, gallery, page, prose
from dr_cli.report.figures import find_figure, find_value
from dr_cli.report.finding import Found, find_runs, tell_progress
from dr_cli.runs import SAMPLE_FOLDER, DataRecord, Run, counted_split
from dr_cli.sample import named
from dr_cli.scoring.of_run import compare_runs
from dr_cli.scoring.predictions import read_checked
from dr_cli.scoring.record import Record

MOST_IN_A_CELL = 100  # images listed of one confusion cell, the most confident first
MOST_IN_CELLS = 400  # of one confusion cell over all runs: a page of ten stays under 4 MB

# Without these there is no report; a file that lacks one was not written by `dr train`.
NEEDED_OPTIONS = {"arch": str, "epochs": int, "size": int}
NEEDED_FIGURES = {
    **dict.fromkeys(("n", "failed"), int),
    **dict.fromkeys(("accuracy", "qwk", "referable", "calibration", "baselines"), dict),
    **dict.fromkeys(("per_grade", "confusion", "warnings"), list),
}


def collect(
    folders: Sequence[Path], *, no_pictures: bool = False, observer: Observer = NOTHING
) -> Record:
    """All that the report says, read from finished runs.

    folders: run folders, or folders that hold run folders one or two levels deep.
    no_pictures: leave out every file name, patient and path of the data.
    A run that is not finished, or whose files cannot be read, stands in "left_out" with the
    reason, and observer is told of it; the others are reported.
    Raises UsageError where a folder is missing, or no run in it is finished and can be read.
    """
    runs, told, left_out = _read_all(find_runs(folders), no_pictures, observer)
    _share_pictures(told)
    return _compose(runs, told, left_out, no_pictures)


def _compose(
    runs: Sequence[Run], told: Sequence[Record], left_out: Sequence[Record], no_pictures: bool
) -> Record:
    best, chosen_by, doubts = _choose_best(runs, told)
    runs, told = _put_best_first(runs, told, best)
    comparisons = _compare(runs, told)
    return {
        "schema": 1,
        "version": __version__,
        "date": date.today().isoformat(),
        "intended_use": prose.INTENDED_USE,
        "card": prose.write_card(told),
        "pictures": not no_pictures,
        "privacy": prose.disclose(told, no_pictures),
        "best": best["name"],
        "summary": [*prose.summarise(best, len(told), chosen_by), *doubts],
        "warnings": list(prose.warn(told, comparable=comparisons is not None)),
        "left_out": list(left_out),
        "comparisons": comparisons or [],
        "runs": told,
    }


# ---------------------------------------------------------------- one run


def _read_all(
    found: Found, no_pictures: bool, observer: Observer
) -> tuple[list[Run], list[Record], list[Record]]:
    """The runs that can be read, what is told of them, and of the others why not."""
    listed = 0 if no_pictures else min(MOST_IN_A_CELL, -(-MOST_IN_CELLS // len(found.finished)))
    runs, told, left_out, errors = [], [], [], []
    for run, name in zip(found.finished, found.names, strict=False):
        try:
            told.append(_read_run(run, name, no_pictures, listed))
            runs.append(run)
        except DrError as error:
            errors.append(error)
            left_out.append(_leave_out(run, name, error, no_pictures))
    if not runs:
        raise errors[0]
    for entry, reason in zip(left_out, errors, strict=True):
        observer.warning(f"{entry['name']} is left out: {reason}")
    for run, name in zip(found.unfinished, found.names[len(found.finished) :], strict=True):
        told_of = f"not finished, {tell_progress(run)}"
        again = f"dr train --resume {shlex.quote(str(run.folder))}"
        observer.warning(f"{name} is left out: {told_of}; {again} goes on with it")
        left_out.append({"name": name, "broken": False, "reason": told_of})
    return runs, told, left_out


def _read_run(run: Run, name: str, no_pictures: bool, listed: int) -> Record:
    """Raises DrError for a file that `dr train` did not write so.

    Anything may stand in a record from outside. A run is taken where a page of it alone can be
    made (a third of the time that reading it takes): a broken one must not cost the page of others.
    """
    try:
        told = _describe_run(run, name, no_pictures, listed)
        alone = _compose([run], [told | {"pictures": [], "pictures_left_out": 0}], [], no_pictures)
        page.render(alone)
        page.to_csv(alone)
        return told
    except (
        TypeError, AttributeError, ValueError, LookupError, RecursionError, UndefinedError,
    ) as error:  # fmt: skip
        what = f"{type(error).__name__}: {error}"
        raise UsageError(f"{run.folder} is not as dr train wrote it ({what})") from error


def _describe_run(run: Run, name: str, no_pictures: bool, listed: int) -> Record:
    summary, config, history = run.summary(), run.config(), run.history()
    split = counted_split(summary)
    _need(config.options, NEEDED_OPTIONS, run["config.json"])
    for measured in filter(None, map(summary.get, ("val", "test"))):
        _need(measured, NEEDED_FIGURES, run["summary.json"])
    record = _without_run(summary[split])
    predictions = read_checked(run, split)
    counts = _count_splits(run)
    data = _describe_data(config.data, no_pictures)
    pictures = [] if no_pictures else gallery.check(run.pictures(), run["pictures.json"])
    options = command.without_paths(config.options) if no_pictures else dict(config.options)
    return {
        "name": name,
        "architecture": options["arch"],
        "start": command.name_start(options),
        "epochs": len(history) or options["epochs"],
        "best_epoch": run.epoch(),
        "size": options["size"],
        "parameters": config.parameters,
        "multiply_adds": config.multiply_adds,
        "seconds_per_epoch": _median(row.get("seconds") for row in history),
        "seconds": sum(row.get("seconds") or 0 for row in history) or None,
        "images_per_second": _median(row.get("images_per_second") for row in history),
        "phases": _split_seconds(history, counts),
        "drawn": config.data.drawn,
        "decision": run.calibration().to_record()["decision"],
        "split": split,
        "record": record,
        "val": _without_run(summary.get("val") or {}) or None,
        "history": history,
        "curves": curves.find_curves(predictions, find_value(record, "calibration.temperature")),
        "cells": curves.list_cells(predictions, listed) if listed else {},
        "splits": counts,
        "options": options,
        "made_with": {key: getattr(config, key) for key in ("device", "precision", "threads")}
        | dict(config.versions),
        "data": data,
        "preprocessing": dict(config.preprocessing),
        "command": command.spell(data, options, config.changes),
        "pictures": pictures,
    }


def _need(part: Any, kinds: Mapping[str, type], where: Path) -> None:
    for name, kind in kinds.items():
        if not isinstance(find_figure(part, name), kind):
            raise UsageError(f"{where} holds no {name} as dr train writes it: train a new run")


def _without_run(record: Mapping[str, Any]) -> Record:
    """A record less what its run says already: its name, and where its data lie."""
    return {key: value for key, value in record.items() if key not in ("run", "data")}


def _describe_data(data: DataRecord, no_pictures: bool) -> Record:
    """What config.json says of the data set; its place only where that may be told."""
    told = asdict(data)
    kept = data.drawn and SAMPLE_FOLDER.search(data.root)
    if kept or no_pictures:
        del told["root"], told["source"]
    if not kept:
        return told
    name = named.spell(data.root)
    other = name not in (None, named.DEFAULT)
    return {"root": name if other else command.SAMPLE_SET} | told


def _count_splits(run: Run) -> list[Record]:
    """What each split holds, and how many of its images have the patient's other eye in train."""
    table = run.splits()
    placed = table[table["split"].notna()]
    found = splits.summary(placed)
    trained = placed.loc[placed["split"] == "train", "patient"].dropna()
    fellows = placed.loc[placed["patient"].isin(trained), "split"].value_counts()
    told = []
    for split, counts in found.items():
        also = int(fellows.get(split, 0)) if split != "train" and len(trained) else None
        told.append({"split": split, **counts, "patient_also_in_train": also})
    return told


def _split_seconds(
    history: Sequence[Mapping[str, float | None]], counts: Sequence[Record]
) -> list[list[float]]:
    """[epoch, seconds of training, seconds of predicting validation and test] an epoch.

    images_per_second is of the training phase alone; what else the epoch took was evaluation.
    """
    images = next((row["n"] for row in counts if row["split"] == "train"), None)
    phases = []
    for row in history:
        epoch, seconds, speed = (row.get(k) for k in ("epoch", "seconds", "images_per_second"))
        if images and epoch is not None and seconds is not None and speed:
            training = min(images / speed, seconds)
            phases.append([epoch, round(training, 3), round(seconds - training, 3)])
    return phases


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


# ---------------------------------------------------------------- several runs


def _choose_best(runs: Sequence[Run], told: Sequence[Record]) -> tuple[Record, str, list[str]]:
    """The best run, what chose it (validation QWK where every run has it, else the QWK that is
    shown of each), and what must be said of that choice."""
    by = "val" if all(find_value(run["val"], "qwk") is not None for run in told) else "record"
    scores = [find_value(run[by], "qwk") for run in told]
    known = [-math.inf if score is None else score for score in scores]
    best = told[known.index(max(known))]
    doubts = []
    if len(told) > 1 and by == "record":
        doubts.append(prose.CHOSEN_ON_TEST)
    elif len(told) > 1:
        if any(run.config().picked_on_test for run in runs):
            doubts.append(prose.CHOSEN_ON_TEST)
        validated = [run.predictions("val")["path"] for run in runs if run.has("val")]
        if len(set(map(frozenset, validated))) > 1:
            doubts.append(prose.OTHER_VALIDATION)
    if by == "val":
        return best, "validation QWK", doubts
    return best, "test QWK" if all(run["split"] == "test" for run in told) else "QWK", doubts


def _put_best_first(
    runs: Sequence[Run], told: Sequence[Record], best: Record
) -> tuple[list[Run], list[Record]]:
    """The best, then the others by the QWK that the page shows of them."""

    def rank(pair: tuple[Run, Record]) -> tuple[bool, float]:
        qwk = find_value(pair[1]["record"], "qwk")
        return pair[1] is not best, math.inf if qwk is None else -qwk

    ordered = sorted(zip(runs, told, strict=True), key=rank)
    return [run for run, _ in ordered], [record for _, record in ordered]


def _compare(runs: Sequence[Run], told: Sequence[Record]) -> list[Record] | None:
    """Every pair of runs as `comparison.compare` gives it, each by its own calibration.

    None where the runs were not measured on the same images; empty for a run alone, and for
    runs measured on different splits.
    """
    if len(runs) < 2 or len({run["split"] for run in told}) > 1:
        return []
    try:
        return compare_runs(runs, told[0]["split"], names=[run["name"] for run in told])
    except UsageError:  # other images or grades; its text would name one of them
        return None


def _leave_out(run: Run, name: str, error: DrError, no_pictures: bool) -> Record:
    """What the page says of a run that cannot be read; to share without a file's contents."""
    reason = str(error).replace(f"{run.folder}{os.sep}", "").replace(str(run.folder), name)
    told = "a file of it cannot be read" if no_pictures else reason
    return {"name": name, "broken": True, "reason": told}


def _share_pictures(told: list[Record]) -> None:
    """Cuts each run's pictures to an equal share of the page, and counts what is left out."""
    share = gallery.MOST_BYTES // max(1, sum(bool(record["pictures"]) for record in told))
    for record in told:
        shown = gallery.fit(record["pictures"], share)
        record["pictures_left_out"] = len(record["pictures"]) - len(shown)
        record["pictures"] = shown
