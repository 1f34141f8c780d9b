"""Run folders -> one plain dictionary, which every form of the report is made of.

Lists, dictionaries, strings, finite numbers and None, nothing else: it is what
`dr report --format json` prints. Only files of the run folders are read; no network is run.
Without pictures the dictionary itself holds no file name, no patient and no path of the data, so
that every form of it is fit to share.
"""

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dr_cli import __version__
from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES, REFERABLE_FROM, expected_grade, referable_probability
from dr_cli.labels import splits
from dr_cli.report import gallery, prose
from dr_cli.runs import SAMPLE_FOLDER, DataRecord, Run, counted_split
from dr_cli.scoring.calibration import retemper
from dr_cli.scoring.metrics import reliability_curve
from dr_cli.scoring.of_run import compare_runs
from dr_cli.scoring.predictions import PROBABILITIES, check
from dr_cli.scoring.record import Record
from dr_cli.training.config import TrainConfig, flag

SAMPLE_SET = "the built-in sample set"
MOST_IN_A_CELL = 100  # images listed of one confusion cell, the most confident first
MOST_IN_CELLS = 400  # of one confusion cell over all runs: a page of ten stays under 4 MB
MOST_ON_ROC = 200  # points kept of a curve: a page of ten runs stays under 4 MB
EXPECTED_BINS = 20  # of the expected grade, from 0 to 4

# Without these there is no report; a file that lacks one was not written by `dr train`.
NEEDED_OPTIONS = {"arch": str, "epochs": int, "size": int}
NEEDED_FIGURES = {
    **dict.fromkeys(("n", "failed"), int),
    **dict.fromkeys(("accuracy", "qwk", "referable", "calibration", "baselines"), dict),
    **dict.fromkeys(("per_grade", "confusion", "warnings"), list),
}


def collect(folders: Sequence[Path], *, no_pictures: bool = False) -> Record:
    """All that the report says, read from finished runs.

    folders: run folders, or folders that hold run folders one or two levels deep.
    no_pictures: leave out every file name, patient and path of the data.
    Raises UsageError where a folder is missing, no run in it is finished, or a file of a run
    cannot be read.
    """
    found = [run for folder in folders for run in find_runs(Path(folder))]
    runs = list({run.folder.resolve(): run for run in found}.values())
    names = _tell_apart(runs)
    listed = 0 if no_pictures else min(MOST_IN_A_CELL, -(-MOST_IN_CELLS // len(runs)))
    told = [_read_run(r, name, no_pictures, listed) for r, name in zip(runs, names, strict=True)]
    _add_pictures(runs, told, no_pictures)
    best, chosen_by = _choose_best(told)
    comparisons = _compare(runs, told)
    return {
        "schema": 1,
        "version": __version__,
        "intended_use": prose.INTENDED_USE,
        "card": prose.write_card(told),
        "pictures": not no_pictures,
        "privacy": prose.disclose(told, no_pictures),
        "best": best["name"],
        "summary": prose.summarise(best, len(told), chosen_by),
        "warnings": list(prose.warn(told, comparable=comparisons is not None)),
        "comparisons": comparisons or [],
        "runs": told,
    }


def find_runs(folder: Path) -> list[Run]:
    """The finished runs in `folder`: itself, or those one or two levels below, by name."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a run folder or a folder of runs")
    if Run(folder).finished:
        return [Run(folder)]
    summaries = (*folder.glob("*/summary.json"), *folder.glob("*/*/summary.json"))
    below = {path.parent for path in summaries}
    if below:  # the folds of a cross-validation are read as the one run that pools them
        return [Run(path) for path in sorted(below) if path.parent not in below]
    if (folder / "config.json").is_file():
        raise UsageError(
            f"{folder}: this run is not finished (no summary.json); "
            f"finish it with dr train --resume {shlex.quote(str(folder))}"
        )
    raise UsageError(f"{folder}: no finished run (no summary.json in it); make one with dr train")


def find_value(record: Any, name: str) -> Any:
    """The value of a figure such as "qwk" or "referable.auc"; None where it is undefined."""
    found = find_figure(record, name)
    return found.get("value") if isinstance(found, Mapping) else found


def find_figure(record: Any, name: str) -> Any:
    """What a record holds of a figure, {"value", "ci95"} or the value; None without it."""
    for key in name.split("."):
        record = record.get(key) if isinstance(record, Mapping) else None
    return record


# ---------------------------------------------------------------- one run


def _read_run(run: Run, name: str, no_pictures: bool, listed: int) -> Record:
    summary, config, history = run.summary(), run.config(), run.history()
    split = counted_split(summary)
    _need(config.options, NEEDED_OPTIONS, run["config.json"])
    for measured in filter(None, map(summary.get, ("val", "test"))):
        _need(measured, NEEDED_FIGURES, run["summary.json"])
    record = _without_run(summary[split])
    predictions = run.predictions(split)
    check(predictions, str(run[f"predictions-{split}.csv"]))
    counts = _count_splits(run)
    data = _describe_data(config.data, no_pictures)
    options = _without_paths(config.options) if no_pictures else dict(config.options)
    return {
        "name": name,
        "architecture": options["arch"],
        "start": _name_start(options),
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
        "curves": _find_curves(predictions, find_value(record, "calibration.temperature")),
        "cells": _list_cells(predictions, listed) if listed else {},
        "splits": counts,
        "options": options,
        "made_with": {key: getattr(config, key) for key in ("device", "precision", "threads")}
        | dict(config.versions),
        "data": data,
        "preprocessing": dict(config.preprocessing),
        "command": " ".join(["dr", "train", *_spell_data(data), *_spell_options(options)]),
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
    return {"root": SAMPLE_SET} | told if kept else told


def _count_splits(run: Run) -> list[Record]:
    """What each split holds, and how many of its images have the patient's other eye in train."""
    table = run.splits()
    try:
        placed = table[table["split"].notna()].astype({"grade": int})
        found = splits.summary(placed)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{run['splits.csv']} cannot be read: {error}") from error
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


# ---------------------------------------------------------------- its predictions


def _list_cells(predictions: pd.DataFrame, most: int) -> dict[str, list[Record]]:
    """At most `most` images of each confusion cell: "true-predicted" -> path, probability."""
    cells: dict[str, list[Record]] = {}
    paths = predictions["path"].to_list()
    grade, predicted = (predictions[name].to_numpy(int) for name in ("grade", "predicted"))
    sure = predictions[PROBABILITIES].to_numpy()[np.arange(len(paths)), predicted]
    for i in np.argsort(-sure, kind="stable"):
        cell = cells.setdefault(f"{grade[i]}-{predicted[i]}", [])
        if len(cell) < most:
            cell.append({"path": paths[i], "probability": round(float(sure[i]), 4)})
    return cells


def _find_curves(predictions: pd.DataFrame, temperature: float | None) -> Record:
    """What the charts of a run are drawn from.

    roc: [false positive rate, sensitivity] of referable retinopathy, None with one class
    reliability: before and after temperature, [confidence, share right, images] a bin
    expected: for each true grade, images in each of EXPECTED_BINS bins of the expected grade
    """
    grade, after = predictions["grade"].to_numpy(int), predictions[PROBABILITIES].to_numpy()
    before = _list_bins(grade, retemper(after, temperature)) if temperature else None
    roc = measure_roc(grade >= REFERABLE_FROM, referable_probability(after))
    if roc is not None and len(roc) > MOST_ON_ROC:
        roc = roc[np.linspace(0, len(roc) - 1, MOST_ON_ROC).round().astype(int)]
    ends = (0, NUM_GRADES - 1)
    return {
        "roc": None if roc is None else roc.round(4).tolist(),
        "reliability": {"before": before, "after": _list_bins(grade, after)},
        "expected": [
            np.histogram(expected_grade(after[grade == g]), EXPECTED_BINS, ends)[0].tolist()
            for g in range(NUM_GRADES)
        ],
    }


def measure_roc(truth: NDArray[np.bool_], score: NDArray[Any]) -> NDArray[np.float64] | None:
    """[M, 2] false positive rate and sensitivity, from (0, 0) to (1, 1): truth [N], score [N].

    A point a threshold, without those that lie on a line with their neighbours, as
    scikit-learn's `roc_curve` gives them. None where all images are of one class.
    """
    if truth.all() or not truth.any():
        return None
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)  # image of each score
    called = np.column_stack([~truth[order], truth[order]]).cumsum(axis=0)[last]
    bends = np.ones(len(called), bool)
    bends[1:-1] = np.diff(called, 2, axis=0).any(axis=1)
    return np.vstack([[0, 0], called[bends]]) / called[-1]


def _list_bins(grade: NDArray[np.int64], probabilities: NDArray[Any]) -> list[list[float]]:
    return [
        [round(b["confidence"], 4), round(b["accuracy"], 4), b["n"]]
        for b in reliability_curve(grade, probabilities)
        if b["n"]
    ]


# ---------------------------------------------------------------- the command that repeats it


def _name_start(options: Mapping[str, Any]) -> str:
    if options.get("pretrained"):
        return "ImageNet"
    return "a local file" if options.get("weights") else "scratch"


def _without_paths(options: Mapping[str, Any]) -> Record:
    """The options, with a word in the place of each path."""
    told = dict(options)
    if told.get("weights"):
        told["weights"] = "FILE"
    if not re.fullmatch(r"[\d.]+|test", str(told.get("val", "test"))):
        told["val"] = "PATH"
    return told


def _spell_data(data: Mapping[str, Any]) -> list[str]:
    """DATA and its columns on the `dr train` line; nothing names the built-in sample set."""
    root = data.get("root")
    if root == SAMPLE_SET:
        return []
    words = [shlex.quote(root) if root else "DATA"]
    for key, column in (data.get("columns") or {}).items():
        words += [flag(f"{key}_column"), shlex.quote(str(column))]
    return words


def _spell_options(options: Mapping[str, Any]) -> list[str]:
    """Every option that is not its default, as on the `dr train` line."""
    words = []
    for key, default in TrainConfig().to_dict().items():
        value = options.get(key, default)
        if value in (default, None):
            continue
        if isinstance(default, bool):
            words.append(flag(key if value else f"no_{key}"))
        else:
            words += [flag(key), shlex.quote(str(value))]
    return words


# ---------------------------------------------------------------- several runs


def _tell_apart(runs: Sequence[Run]) -> list[str]:
    """The folders' names, with as many parents as it takes to tell them apart."""
    whole = [run.folder.resolve().parts for run in runs]
    for depth in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(names)) == len(names):
            break
    return names


def _choose_best(runs: Sequence[Record]) -> tuple[Record, str]:
    """The best run and what chose it: validation QWK where every run has it, else test QWK."""
    by = "val" if all(find_value(run["val"], "qwk") is not None for run in runs) else "record"
    scores = [find_value(run[by], "qwk") for run in runs]
    known = [-math.inf if score is None else score for score in scores]
    return runs[known.index(max(known))], "validation QWK" if by == "val" else "test QWK"


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


def _add_pictures(runs: Sequence[Run], told: list[Record], no_pictures: bool) -> None:
    """To each run the pictures it shows, an equal share of the page, and how many more it has."""
    found = [
        [] if no_pictures else gallery.check(run.pictures(), run["pictures.json"]) for run in runs
    ]
    share = gallery.MOST_BYTES // max(1, sum(map(bool, found)))
    for record, entries in zip(told, found, strict=True):
        shown = gallery.fit(entries, share)
        record |= {"pictures": shown, "pictures_left_out": len(entries) - len(shown)}
