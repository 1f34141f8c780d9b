"""Run folders -> one plain dictionary (`collect`) -> one HTML file (`render`).

The dictionary is what `dr report --format json` prints: lists, dicts, strings, finite numbers and
null, nothing else. Only files of the run folders are read; no network is run. Without pictures
the dictionary itself holds no file name, no patient and no path, so every form of it is fit to
share.
"""

import csv
import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dr_cli import __version__, grades
from dr_cli.config import TrainConfig, flag
from dr_cli.errors import UsageError
from dr_cli.report import figures

INTENDED_USE = (
    "For research and teaching. This is no medical device: it makes no diagnosis, "
    "and nobody's treatment may rest on it."
)
MOST_IN_A_CELL = 100  # images listed of one confusion cell, the most confident first
_SPLITS = ("test", "val")


def collect(folders: Sequence[Path], *, no_pictures: bool = False) -> dict[str, Any]:
    """All that the report says, read from finished runs.

    folders: run folders, or folders that hold run folders one or two levels deep.
    no_pictures: leave out every file name, patient and path of the data.
    Raises UsageError where a folder is missing, no run in it is finished, or a file of a run
    cannot be read.
    """
    found = [run for folder in folders for run in find_runs(Path(folder))]
    paths = list({path.resolve(): path for path in found}.values())
    runs = [
        _read_run(path, name, no_pictures) for path, name in zip(paths, _names(paths), strict=True)
    ]
    best, chosen_by = _best(runs)
    return {
        "schema": 1,
        "version": __version__,
        "intended_use": INTENDED_USE,
        "pictures": not no_pictures,
        "best": runs[best]["name"],
        "summary": _sentences(runs[best], len(runs), chosen_by),
        "warnings": _comparison_warnings(runs),
        "runs": runs,
    }


def render(data: Mapping[str, Any]) -> str:
    """One self-contained HTML page of what `collect` returned: no network, no library."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dr_cli.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"figure": figure, "percent": percent, "number": number}
    return environment.get_template("page.html.jinja").render(
        data=data,
        style=Markup(files("dr_cli.report").joinpath("style.css").read_text(encoding="utf-8")),
        names=grades.NAMES,
        charts=_comparison_charts(data["runs"]),
        columns=TABLE,
        swatch=figures.swatch,
        loss_chart=_loss_chart,
    )


def find_runs(folder: Path) -> list[Path]:
    """The finished runs in `folder`: itself, or those one or two levels below, by name."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a run folder or a folder of runs")
    if (folder / "summary.json").is_file():
        return [folder]
    below = sorted({*folder.glob("*/summary.json"), *folder.glob("*/*/summary.json")})
    if below:
        return [path.parent for path in below]
    if (folder / "config.json").is_file():
        raise UsageError(
            f"{folder}: this run is not finished (no summary.json); "
            f"finish it with dr train --resume {shlex.quote(str(folder))}"
        )
    raise UsageError(f"{folder}: no finished run (no summary.json in it); make one with dr train")


# ---------------------------------------------------------------- one run


def _read_run(folder: Path, name: str, no_pictures: bool) -> dict[str, Any]:
    summary = _read_json(folder / "summary.json")
    split = next((s for s in _SPLITS if summary.get(s)), None)
    if split is None:
        raise UsageError(f"{folder / 'summary.json'}: neither test nor val in it; train it again")
    config = _read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    options = dict(config.get("options") or {})
    data = dict(config.get("data") or {})
    history = _read_history(folder / "metrics.csv")
    command = _command(options, None if no_pictures else data.get("root"))
    if no_pictures:
        data.pop("root", None)
        options = {key: value for key, value in options.items() if key != "weights"}
    return {
        "name": name,
        "architecture": options.get("arch"),
        "start": _start(options),
        "epochs": len(history) or options.get("epochs"),
        "best_epoch": config.get("best_epoch"),
        "size": options.get("size"),
        "parameters": config.get("parameters"),
        "multiply_adds": config.get("multiply_adds"),
        "seconds_per_epoch": _median(row.get("seconds") for row in history),
        "images_per_second": _median(row.get("images_per_second") for row in history),
        "split": split,
        "record": _record(summary[split], no_pictures),
        "val": _record(summary.get("val") or {}, no_pictures) or None,
        "history": history,
        "cells": _cells(folder / f"predictions-{split}.csv", no_pictures),
        "options": options,
        "made_with": {
            key: config[key]
            for key in ("device", "precision", "threads", "seconds")
            if key in config
        }
        | dict(config.get("versions") or {}),
        "data": data,
        "command": command,
    }


def _record(record: Mapping[str, Any], no_pictures: bool) -> dict[str, Any]:
    hidden = ("run", "data") if no_pictures else ()
    return {key: value for key, value in record.items() if key not in hidden}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); train the run again") from error
    if not isinstance(value, dict):
        raise UsageError(f"{path} holds no JSON object; train the run again")
    return value


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


def _cells(path: Path, no_pictures: bool) -> dict[str, list[dict[str, Any]]]:
    """The images of each confusion cell, "true-predicted" -> path and probability, capped."""
    if no_pictures:
        return {}
    cells: dict[str, list[dict[str, Any]]] = {}
    for line, row in enumerate(_read_csv(path), start=2):
        try:
            true, predicted = int(row["grade"]), int(row["predicted"])
            image = {"path": row["path"], "probability": float(row[f"p{predicted}"])}
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path}, line {line}: not a row of path,grade,...,p0,p1,p2,p3,p4,predicted"
            ) from error
        cells.setdefault(f"{true}-{predicted}", []).append(image)
    return {
        key: sorted(images, key=lambda image: -image["probability"])[:MOST_IN_A_CELL]
        for key, images in cells.items()
    }


def _start(options: Mapping[str, Any]) -> str:
    if options.get("pretrained"):
        return "ImageNet"
    return "a local file" if options.get("weights") else "scratch"


def _command(options: Mapping[str, Any], root: str | None) -> str:
    """The `dr train` line that repeats a run: every option that is not its default."""
    words = ["dr", "train", shlex.quote(root) if root else "DATA"]
    defaults = TrainConfig().to_dict()
    for key, default in defaults.items():
        value = options.get(key, default)
        if value == default or value is None:
            continue
        if isinstance(default, bool):
            words.append(flag(key) if value else flag("no_" + key))
        else:
            hidden = key == "weights" and root is None
            words += [flag(key), "FILE" if hidden else shlex.quote(str(value))]
    return " ".join(words)


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
    by_val = [value_of(run["val"], "qwk") for run in runs]
    if all(value is not None for value in by_val):
        scores, chosen_by = by_val, "validation QWK"
    else:
        scores, chosen_by = [value_of(run["record"], "qwk") for run in runs], "test QWK"
    return max(
        range(len(runs)), key=lambda i: -math.inf if scores[i] is None else scores[i] or 0.0
    ), chosen_by


def _sentences(run: Mapping[str, Any], count: int, chosen_by: str) -> list[str]:
    record = run["record"]
    on = {"test": "test", "val": "validation"}[run["split"]]
    chosen = (
        f"Of {count} runs, {run['name']} has the best {chosen_by}" if count > 1 else run["name"]
    )
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
    return [first] + ([f"For comparison, {', and '.join(told)}."] if told else [])


def _comparison_warnings(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    told = []
    if len({(r["data"].get("fingerprint"), r["record"].get("n"), r["split"]) for r in runs}) > 1:
        told.append(
            "These runs were not all measured on the same images: "
            "their figures cannot be compared as they stand."
        )
    optimistic = [run["name"] for run in runs if run["options"].get("val") == "test"]
    if optimistic:
        told.append(
            f"The best epoch was picked on the test images ({', '.join(optimistic)}): "
            "those figures are optimistic."
        )
    return told


# ---------------------------------------------------------------- charts and words

TABLE = (  # heading, what sorts the column, what stands in it
    ("Architecture", lambda run: run["architecture"], lambda run: run["architecture"] or "n/a"),
    ("Start", lambda run: run["start"], lambda run: run["start"]),
    ("Epochs", lambda run: run["epochs"], lambda run: number(run["epochs"])),
    ("Parameters", lambda run: run["parameters"], lambda run: _millions(run["parameters"])),
    (
        "Seconds an epoch",
        lambda run: run["seconds_per_epoch"],
        lambda run: number(run["seconds_per_epoch"], 1),
    ),
    (
        "Images/s",
        lambda run: run["images_per_second"],
        lambda run: number(run["images_per_second"], 1),
    ),
    (
        "Accuracy",
        lambda run: value_of(run["record"], "accuracy"),
        lambda run: figure(run["record"].get("accuracy"), True),
    ),
    (
        "QWK",
        lambda run: value_of(run["record"], "qwk"),
        lambda run: figure(run["record"].get("qwk")),
    ),
    (
        "Referable AUC",
        lambda run: value_of(run["record"], "referable", "auc"),
        lambda run: figure((run["record"].get("referable") or {}).get("auc")),
    ),
)


def figure(record: Mapping[str, Any] | None, as_percent: bool = False) -> str:
    """A figure with its 95% interval: "0.712 (0.640–0.781)"; "n/a" where it is undefined."""
    if not record or record.get("value") is None:
        return "n/a"
    write = percent if as_percent else number
    interval = record.get("ci95")
    told = f" ({write(interval[0])}–{write(interval[1])})" if interval else ""
    return write(record["value"]) + told


def number(value: float | None, digits: int = 3) -> str:
    """A number of at most `digits` decimals, whole ones without; "n/a" for None."""
    if value is None:
        return "n/a"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage; "n/a" for None."""
    return "n/a" if value is None else f"{value:.{digits}%}"


def _millions(value: float | None) -> str:
    return "n/a" if value is None else f"{value / 1e6:.1f} M"


def _comparison_charts(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Accuracy and QWK against epoch, all runs in one chart each, with what the lines are."""
    charts = []
    for title, metric, first in (("Accuracy", "accuracy", "train"), ("QWK", "qwk", "val")):
        lines = []
        for i, run in enumerate(runs):
            last = "test" if _points(run, f"test_{metric}") else "val"
            for split in dict.fromkeys((first, last)):
                points = _points(run, f"{split}_{metric}")
                if points:
                    word = {"train": "training", "val": "validation", "test": "testing"}[split]
                    lines.append(figures.Line(f"{run['name']}, {word}", points, i, split != last))
        described = f"{title} against epoch. " + ". ".join(
            f"{line.name}: from {line.points[0][1]:.3f} to {line.points[-1][1]:.3f}"
            for line in lines
        )
        svg = figures.line_chart(
            lines, y_label=title, described=described, percent=metric == "accuracy"
        )
        if svg:
            charts.append({"title": f"{title} against epoch", "svg": svg, "lines": lines})
    return charts


def _loss_chart(run: Mapping[str, Any], style: int) -> Markup:
    lines = [
        figures.Line(word, points, style, dashed)
        for word, column, dashed in (
            ("training", "train_loss", True),
            ("validation", "val_loss", False),
        )
        if (points := _points(run, column))
    ]
    return figures.line_chart(
        lines, y_label="loss", described=f"Training and validation loss of {run['name']} by epoch"
    )


def _points(run: Mapping[str, Any], column: str) -> list[tuple[float, float]]:
    return [
        (row["epoch"], row[column])
        for row in run["history"]
        if row.get("epoch") is not None and row.get(column) is not None
    ]


def _finite(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _median(values: Iterable[float | None]) -> float | None:
    ordered = sorted(value for value in values if value is not None)
    if not ordered:
        return None
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
