"""Run folders -> one plain dictionary, which every form of the report is made of.

Lists, dictionaries, strings, finite numbers and None, nothing else: it is what
`dr report --format json` prints. Only files of the run folders are read; no network is run.
Without pictures the dictionary itself holds no file name, no patient and no path of the data, so
that every form of it is fit to share.
"""

import csv
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli import __version__
from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES, REFERABLE_FROM, expected_grade, referable_probability
from dr_cli.labels.layouts import SPLITS
from dr_cli.report import gallery
from dr_cli.scoring.record import verdict
from dr_cli.training.config import TrainConfig, flag
from dr_cli.words import figure, number, percent

INTENDED_USE = (
    "For research and teaching. This is no medical device: it makes no diagnosis, "
    "and nobody's treatment may rest on it."
)
CARD = (
    ("Intended use", INTENDED_USE),
    (
        "Out of scope",
        "Diagnosis, triage, or any decision about a person's care; photographs from cameras, "
        "fields or populations that the training data do not hold, before they were measured on "
        "such; photographs that a reader would call ungradable; eye diseases other than diabetic "
        "retinopathy.",
    ),
    (
        "Metrics",
        "QWK is Cohen's kappa with quadratic weights: 0 is chance, 1 is full agreement, and a "
        "mistake by two grades weighs four times one by a single grade. Referable is grade 2 or "
        "more. Intervals come from a bootstrap that draws patients, with both their eyes. "
        "Epoch, temperature and thresholds are chosen on validation images unless a warning says "
        "otherwise.",
    ),
    (
        "Limits",
        "The true grades are human readings and carry their readers' disagreement. A test set "
        "from the training data's own source says little about another clinic's. An interval "
        "tells how far chance in the choice of patients reaches, and nothing of such shifts.",
    ),
)
DRAWN = "drawn_"  # how the file names of the built-in sample set begin
BUILT_IN = re.compile(r"[/\\]sample[/\\][^/\\]+$")  # where the cache keeps that set
SAMPLE_SET = "the built-in sample set"
MOST_IN_A_CELL = 100  # images listed of one confusion cell, the most confident first
MOST_IN_CELLS = 400  # of one confusion cell over all runs: a page of ten stays under 4 MB
MOST_ON_ROC = 200  # points kept of a curve: a page of ten runs stays under 4 MB
EXPECTED_BINS = 20  # of the expected grade, from 0 to 4


def collect(folders: Sequence[Path], *, no_pictures: bool = False) -> dict[str, Any]:
    """All that the report says, read from finished runs.

    folders: run folders, or folders that hold run folders one or two levels deep.
    no_pictures: leave out every file name, patient and path of the data.
    Raises UsageError where a folder is missing, no run in it is finished, or a file of a run
    cannot be read.
    """
    found = [run for folder in folders for run in find_runs(Path(folder))]
    paths = list({path.resolve(): path for path in found}.values())
    names = _names(paths)
    listed = 0 if no_pictures else min(MOST_IN_A_CELL, -(-MOST_IN_CELLS // len(paths)))
    runs = [_read_run(p, name, no_pictures, listed) for p, name in zip(paths, names, strict=True)]
    _add_pictures(paths, runs, no_pictures)
    best, chosen_by = _best(runs)
    comparisons = _comparisons(paths, runs)
    return {
        "schema": 1,
        "version": __version__,
        "intended_use": INTENDED_USE,
        "card": [{"title": title, "text": text} for title, text in _card(runs)],
        "pictures": not no_pictures,
        "privacy": _privacy(runs, no_pictures),
        "best": runs[best]["name"],
        "summary": _sentences(runs[best], len(runs), chosen_by),
        "warnings": _comparison_warnings(runs, comparisons is not None),
        "comparisons": comparisons or [],
        "runs": runs,
    }


def find_runs(folder: Path) -> list[Path]:
    """The finished runs in `folder`: itself, or those one or two levels below, by name."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a run folder or a folder of runs")
    if (folder / "summary.json").is_file():
        return [folder]
    below = sorted({*folder.glob("*/summary.json"), *folder.glob("*/*/summary.json")})
    if below:  # the folds of a cross-validation are read as the one run that pools them
        runs = {path.parent for path in below}
        return [path.parent for path in below if path.parent.parent not in runs]
    if (folder / "config.json").is_file():
        raise UsageError(
            f"{folder}: this run is not finished (no summary.json); "
            f"finish it with dr train --resume {shlex.quote(str(folder))}"
        )
    raise UsageError(f"{folder}: no finished run (no summary.json in it); make one with dr train")


# ---------------------------------------------------------------- one run


def _read_run(folder: Path, name: str, no_pictures: bool, listed: int) -> dict[str, Any]:
    summary = _read_json(folder / "summary.json")
    split = next((s for s in ("test", "val") if summary.get(s)), None)
    if split is None:
        raise UsageError(f"{folder / 'summary.json'}: neither test nor val in it; train it again")
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    options = dict(config.get("options") or {})
    data = dict(config.get("data") or {})
    model = _read_model(folder / "model.safetensors")
    history = _read_history(folder / "metrics.csv")
    splits = _read_splits(folder / "splits.csv")
    predictions = _Predictions(folder / f"predictions-{split}.csv")
    if predictions.drawn and BUILT_IN.search(data.get("root") or ""):
        data["root"] = SAMPLE_SET
    elif no_pictures:
        data.pop("root", None)
    if no_pictures:
        options = _without_paths(options)
    command = ["dr", "train", *_data_words(data), *_flags(options)]
    record = _record(summary[split])
    return {
        "name": name,
        "architecture": options.get("arch"),
        "start": _start(options),
        "epochs": len(history) or options.get("epochs"),
        "best_epoch": config.get("best_epoch", model.get("epoch")),
        "size": options.get("size"),
        "parameters": config.get("parameters"),
        "multiply_adds": config.get("multiply_adds"),
        "seconds_per_epoch": _median(row.get("seconds") for row in history),
        "seconds": sum(row.get("seconds") or 0 for row in history) or None,
        "images_per_second": _median(row.get("images_per_second") for row in history),
        "phases": _phases(history, splits),
        "drawn": predictions.drawn,
        "decision": model.get("decision") or (config.get("chosen") or {}).get("decision"),
        "split": split,
        "record": record,
        "val": _record(summary.get("val") or {}) or None,
        "history": history,
        "curves": predictions.curves((record.get("calibration") or {}).get("temperature")),
        "cells": predictions.cells(listed) if listed else {},
        "splits": splits,
        "options": options,
        "made_with": {k: config[k] for k in ("device", "precision", "threads") if k in config}
        | dict(config.get("versions") or {}),
        "data": data,
        "preprocessing": config.get("preprocessing") or {},
        "command": " ".join(command),
    }


class _Predictions:
    """A predictions file; a missing one is an empty one.

    grade, predicted: [N] int64; probabilities: [N, 5] float64 after temperature; paths: N.
    """

    def __init__(self, path: Path) -> None:
        rows = _read_csv(path)
        self.paths, grade, predicted, probabilities = [], [], [], []
        for line, row in enumerate(rows, start=2):
            try:
                grade.append(_grade(row["grade"]))
                predicted.append(_grade(row["predicted"]))
                probabilities.append([float(row[f"p{i}"]) for i in range(NUM_GRADES)])
                self.paths.append(row["path"])
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(
                    f"{path}, line {line}: not a row of path,grade,...,p0,p1,p2,p3,p4,predicted"
                ) from error
        self.grade, self.predicted = np.array(grade, np.int64), np.array(predicted, np.int64)
        self.probabilities = np.array(probabilities, np.float64).reshape(-1, NUM_GRADES)

    @property
    def drawn(self) -> bool:
        """Whether these are the sample set's drawn eyes, and no photographs."""
        names = [path.rpartition("/")[2] for path in self.paths]
        return bool(names) and all(name.startswith(DRAWN) for name in names)

    def cells(self, most: int) -> dict[str, list[dict[str, Any]]]:
        """At most `most` images of each confusion cell: "true-predicted" -> path, probability."""
        cells: dict[str, list[dict[str, Any]]] = {}
        sure = self.probabilities[np.arange(len(self.paths)), self.predicted]
        for i in np.argsort(-sure, kind="stable"):
            cell = cells.setdefault(f"{self.grade[i]}-{self.predicted[i]}", [])
            if len(cell) < most:
                cell.append({"path": self.paths[i], "probability": round(float(sure[i]), 4)})
        return cells

    def curves(self, temperature: float | None) -> dict[str, Any] | None:
        """What the charts of a run are drawn from; None without predictions.

        roc: [false positive rate, sensitivity] of referable retinopathy, None with one class
        reliability: before and after temperature, [confidence, share right, images] a bin
        expected: for each true grade, images in each of EXPECTED_BINS bins of the expected grade
        """
        if not self.paths:
            return None
        from dr_cli.scoring.metrics import retemper

        before = retemper(self.probabilities, temperature) if temperature else None
        return {
            "roc": self._roc(),
            "reliability": {
                "before": None if before is None else _reliability(self.grade, before),
                "after": _reliability(self.grade, self.probabilities),
            },
            "expected": [
                np.histogram(
                    expected_grade(self.probabilities[self.grade == g]),
                    EXPECTED_BINS,
                    (0, NUM_GRADES - 1),
                )[0].tolist()
                for g in range(NUM_GRADES)
            ],
        }

    def _roc(self) -> list[list[float]] | None:
        truth = self.grade >= REFERABLE_FROM
        if truth.all() or not truth.any():
            return None
        from sklearn.metrics import roc_curve

        false, true, _ = roc_curve(truth, referable_probability(self.probabilities))
        points = np.column_stack([false, true])
        if len(points) > MOST_ON_ROC:
            points = points[np.linspace(0, len(points) - 1, MOST_ON_ROC).round().astype(int)]
        return points.round(4).tolist()


def _grade(text: str) -> int:
    if (grade := int(text)) not in range(NUM_GRADES):
        raise ValueError(text)
    return grade


def _reliability(grade: NDArray[np.int64], probabilities: NDArray[Any]) -> list[list[float]]:
    from dr_cli.scoring.metrics import reliability_curve

    return [
        [round(b["confidence"], 4), round(b["accuracy"], 4), b["n"]]
        for b in reliability_curve(grade, probabilities)
        if b["n"]
    ]


def _read_splits(path: Path) -> list[dict[str, Any]]:
    """What each split holds, and how many of its images have the patient's other eye in train."""
    rows = _read_csv(path)
    try:
        trained = {row["patient"] for row in rows if row["split"] == "train" and row["patient"]}
        return [
            {
                "split": split,
                "n": len(here),
                "patients": len({row["patient"] for row in here} - {""}) or None,
                "grade_counts": [
                    sum(row["grade"] == str(g) for row in here) for g in range(NUM_GRADES)
                ],
                "patient_also_in_train": sum(row["patient"] in trained for row in here)
                if split != "train" and trained
                else None,
            }
            for split in SPLITS
            if (here := [row for row in rows if row["split"] == split])
        ]
    except KeyError as error:
        raise UsageError(f"{path} has no column {error}; train the run again") from error


def _phases(
    history: Sequence[Mapping[str, float | None]], splits: Sequence[Mapping[str, Any]]
) -> list[list[float]]:
    """[epoch, seconds of training, seconds of predicting validation and test] an epoch.

    images_per_second is of the training phase alone; what else the epoch took was evaluation.
    """
    images = next((row["n"] for row in splits if row["split"] == "train"), None)
    phases = []
    for row in history:
        epoch, seconds, speed = (row.get(k) for k in ("epoch", "seconds", "images_per_second"))
        if images and epoch is not None and seconds is not None and speed:
            training = min(images / speed, seconds)
            phases.append([epoch, round(training, 3), round(seconds - training, 3)])
    return phases


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Without what the run says already: its name, and where its data lie."""
    return {key: value for key, value in record.items() if key not in ("run", "data")}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); train the run again") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object; train the run again")
    return value


def _read_model(path: Path) -> dict[str, Any]:
    """What the weights' own metadata say, without the weights; {} without such a file."""
    if not path.is_file():
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            return {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
    except (OSError, ValueError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be read ({error}); train the run again") from error


def _read_history(path: Path) -> list[dict[str, float | None]]:
    """The rows of metrics.csv as numbers; an empty field, nan or infinity is None."""
    return [{key: _finite(text) for key, text in row.items()} for row in _read_csv(path)]


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read ({error}); train the run again") from error


def _start(options: Mapping[str, Any]) -> str:
    if options.get("pretrained"):
        return "ImageNet"
    return "a local file" if options.get("weights") else "scratch"


def _without_paths(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options, with a word in the place of each path."""
    told = dict(options)
    if told.get("weights"):
        told["weights"] = "FILE"
    if not re.fullmatch(r"[\d.]+|test", str(told.get("val", "test"))):
        told["val"] = "PATH"
    return told


def _data_words(data: Mapping[str, Any]) -> list[str]:
    """DATA and its columns on the `dr train` line; nothing names the built-in sample set."""
    root = data.get("root")
    if root == SAMPLE_SET:
        return []
    words = [shlex.quote(root) if root else "DATA"]
    for key, column in (data.get("columns") or {}).items():
        words += [flag(f"{key}_column"), shlex.quote(str(column))]
    return words


def _flags(options: Mapping[str, Any]) -> list[str]:
    """Every option that is not its default, as on the `dr train` line."""
    words = []
    for key, default in TrainConfig().to_dict().items():
        value = options.get(key, default)
        if value == default or value is None:
            continue
        if isinstance(default, bool):
            words.append(flag(key) if value else flag("no_" + key))
        else:
            words += [flag(key), shlex.quote(str(value))]
    return words


def _names(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many parents as it takes to tell them apart."""
    whole = [path.resolve().parts for path in paths]
    for depth in range(1, max(map(len, whole)) + 1):
        names = ["/".join(parts[-depth:]) for parts in whole]
        if len(set(names)) == len(names):
            break
    return names


# ---------------------------------------------------------------- several runs


def value_of(record: Mapping[str, Any] | None, *keys: str) -> float | None:
    """The figure at a path such as "referable", "auc"; None where it is undefined."""
    found: Any = record
    for key in keys:
        found = (found or {}).get(key)
    return found.get("value") if isinstance(found, dict) else found


def _best(runs: Sequence[Mapping[str, Any]]) -> tuple[int, str]:
    """The best run and what chose it: validation QWK where every run has it, else test QWK."""
    scores, chosen_by = [value_of(run["val"], "qwk") for run in runs], "validation QWK"
    if any(score is None for score in scores):
        scores, chosen_by = [value_of(run["record"], "qwk") for run in runs], "test QWK"
    known = [-math.inf if score is None else score for score in scores]
    return known.index(max(known)), chosen_by


def _sentences(run: Mapping[str, Any], count: int, chosen_by: str) -> list[str]:
    record = run["record"]
    on = {"test": "test", "val": "validation"}[run["split"]]
    chosen = run["name"] if count == 1 else f"Of {count} runs, {run['name']} has the best "
    chosen += "" if count == 1 else chosen_by
    patients = f" of {record['patients']:,} patients" if record.get("patients") else ""
    first = (
        f"{chosen}: on {record.get('n', 0):,} {on} images{patients} it reaches "
        f"QWK {figure(record.get('qwk'))} and accuracy {figure(record.get('accuracy'), True)}."
    )
    baselines = record.get("baselines") or {}
    told = [
        f"{what} scores QWK {number(base.get('qwk'))} and accuracy {percent(base.get('accuracy'))}"
        for key, what in (
            ("majority", "always predicting the commonest grade"),
            ("fellow_eye", "copying the grade of the patient's other eye"),
        )
        if (base := baselines.get(key))
    ]
    found = [first] + ([f"For comparison, {', and '.join(told)}."] if told else [])
    found += [f"Data: {told}." for told in [_data(run)] if told] + _leaks(record)
    if record.get("baselines") and record.get("qwk") and (said := verdict(record)):
        found.append(f"{said}.")
    return found


def _card(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The model card, with every data set that the runs were made on."""
    told = []
    for run in runs:
        mark = run["data"].get("fingerprint")
        told.append(_data(run) + (f"; fingerprint {mark}" if mark else ""))
    data = ". ".join(text for text in dict.fromkeys(told) if text)
    place = [title for title, _ in CARD].index("Metrics")
    return [*CARD[:place], *([("Data", f"{data}.")] if data else []), *CARD[place:]]


def _data(run: Mapping[str, Any]) -> str:
    """Data set, layout and images by split, without the path that leads there."""
    data = run["data"]
    name = re.split(r"[/\\]", (data.get("root") or "").rstrip("/\\"))[-1]
    layout = f"layout {data['layout']}" if data.get("layout") else ""
    words = {"train": "training", "val": "validation", "test": "test"}
    counts = [f"{row['n']:,} {words[row['split']]}" for row in run["splits"]]
    told = [", ".join(filter(None, [name, layout]))]
    told += [f"{', '.join(counts)} images"] if counts else []
    told = [text for text in told if text]
    return ": ".join(told)


def _leaks(record: Mapping[str, Any]) -> list[str]:
    """How many test images are half known from train or val; nothing where that is not known."""
    if (leaks := record.get("leaks")) is None:
        return []
    n = record["n"]
    found = [
        f"{leaks[key]:,} of these {n:,} images have {what} in train or validation"
        for key, what in (
            ("fellow_eye_in_train", "their fellow eye"),
            ("duplicates_across_splits", "a duplicate"),
        )
        if leaks.get(key)
    ]
    none = "No fellow eye and no duplicate of these images stands in train or validation"
    return [f"Leaks: {'; '.join(found)}." if found else f"{none}."]


def _comparisons(
    paths: Sequence[Path], runs: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]] | None:
    """Every pair of runs as `comparison.compare` gives it, each at its own threshold.

    None where the runs were not measured on the same images; empty without predictions.
    """
    files = [p / f"predictions-{run['split']}.csv" for p, run in zip(paths, runs, strict=True)]
    if (
        len(runs) < 2
        or len({run["split"] for run in runs}) > 1
        or not all(file.is_file() for file in files)
    ):
        return []
    from dr_cli.runs import Run
    from dr_cli.scoring.comparison import compare

    tables = [
        (run["name"], Run(path).predictions(run["split"]))
        for path, run in zip(paths, runs, strict=True)
    ]
    operating = {
        run["name"]: run["record"].get("referable")
        for run in runs
        if value_of(run["record"], "referable", "threshold") is not None
    }
    try:
        return compare(tables, operating=operating)
    except UsageError:  # other images or grades; its text would name one of them
        return None


def _add_pictures(paths: Sequence[Path], runs: list[dict[str, Any]], no_pictures: bool) -> None:
    """To each run the pictures it shows, and how many more its file has."""
    found = [[] if no_pictures else gallery.read(path / "pictures.json") for path in paths]
    for run, all_of_them, shown in zip(runs, found, gallery.share(found), strict=True):
        run |= {"pictures": shown, "pictures_left_out": len(all_of_them) - len(shown)}


def _privacy(runs: Sequence[Mapping[str, Any]], no_pictures: bool) -> str:
    """Whose images are in it, for whoever is about to share it."""
    if no_pictures:
        return "No photograph, file name or patient is in this page."
    if all(run["drawn"] for run in runs):
        return "Every eye in this page is drawn by a program: it holds no patient's image."
    images = sum(len(run["pictures"]) for run in runs if not run["drawn"])
    holds = f"holds {images} photographs of patients and" if images else "holds no photograph, but"
    return (
        f"This page {holds} names patients' images: ask before you share it. "
        "dr report --no-pictures makes one without any."
    )


def _comparison_warnings(runs: Sequence[Mapping[str, Any]], comparable: bool) -> list[str]:
    told = []
    measured_on = {(r["data"].get("fingerprint"), r["record"].get("n"), r["split"]) for r in runs}
    if not comparable or len(measured_on) > 1:
        told.append(
            "These runs were not all measured on the same images with the same grades: "
            "their figures cannot be compared as they stand."
        )
    if any(run["drawn"] for run in runs):
        told.append(
            "The eyes of the built-in sample set are drawn, no photographs: "
            "these figures say nothing about real patients."
        )
    optimistic = [run["name"] for run in runs if run["options"].get("val") == "test"]
    if optimistic:
        told.append(
            f"The best epoch was picked on the test images ({', '.join(optimistic)}): "
            "those figures are optimistic."
        )
    return told


def _finite(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
