"""The dictionary of `collect` -> an HTML page, a Markdown text, a CSV table, or JSON."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from dr_cli import grades
from dr_cli.report import gallery
from dr_cli.report import svg as figures
from dr_cli.report.reading import collect, value_of
from dr_cli.report.svg import Line
from dr_cli.words import (
    difference,
    figure,
    mcnemar,
    number,
    p_value,
    percent,
    scaled,
    signed,
)

__all__ = ["collect", "render", "to_csv", "to_json", "to_markdown"]

Run = Mapping[str, Any]


class Column(NamedTuple):
    """A column of the table of runs: `value` sorts it, `text` stands in it."""

    heading: str
    value: Callable[[Run], Any]
    text: Callable[[Run], str]


def _plain(heading: str, key: str, write: Callable[[Any], str]) -> Column:
    return Column(heading, lambda run: run[key], lambda run: write(run[key]))


def _metric(heading: str, *keys: str, as_percent: bool = False) -> Column:
    def text(run: Run) -> str:
        found: Any = run["record"]
        for key in keys:
            found = (found or {}).get(key)
        return figure(found, as_percent)

    return Column(heading, lambda run: value_of(run["record"], *keys), text)


TABLE = (
    _plain("Architecture", "architecture", lambda value: value or "n/a"),
    _plain("Start", "start", str),
    _metric("QWK", "qwk"),
    _metric("Accuracy", "accuracy", as_percent=True),
    _metric("Referable AUC", "referable", "auc"),
    _plain("Epochs", "epochs", number),
    _plain("Seconds an epoch", "seconds_per_epoch", lambda value: number(value, 1)),
    _plain("Images/s", "images_per_second", lambda value: number(value, 1)),
    _plain("Parameters", "parameters", lambda value: scaled(value, 1e6, "M")),
    _plain("Multiply-adds", "multiply_adds", lambda value: scaled(value, 1e9, "G")),
)

PAIRS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (  # heading, text of a pair
    ("First", lambda pair: pair["a"]),
    ("Second", lambda pair: pair["b"]),
    ("QWK", lambda pair: difference(pair["qwk"])),
    ("Referable AUC", lambda pair: difference(pair["referable_auc"])),
    ("McNemar, referable", lambda pair: mcnemar(pair["mcnemar_referable"])),
    ("McNemar, grade", lambda pair: mcnemar(pair["mcnemar_grade"])),
)


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
    environment.filters |= {"stacked": _stacked, "shade": figures.shade}
    environment.filters |= {"p_value": p_value, "signed": signed}
    return environment.get_template("page.html.jinja").render(
        data=data,
        style=Markup(files("dr_cli.report").joinpath("style.css").read_text(encoding="utf-8")),
        names=grades.NAMES,
        columns=TABLE,
        pairs=PAIRS,
        matrices=_matrices(data),
        calibrations=_calibrations,
        charts=[chart for chart in _comparison(data["runs"]) if chart],
        run_charts=_run_charts,
        swatch=figures.swatch,
        odds=figures.odds,
        heat_key=figures.heat_key,
        most_bytes=gallery.MOST_BYTES,
    )


def to_json(data: Mapping[str, Any]) -> str:
    """The dictionary itself."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_csv(data: Mapping[str, Any]) -> str:
    """A row a run: plain numbers, with the ends of the interval beside each figure."""
    text = io.StringIO(newline="")
    rows = [_csv_row(run) for run in data["runs"]]
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_markdown(data: Mapping[str, Any]) -> str:
    """Intended use, summary, warnings, the table of runs and that of pairs."""
    table = [["Run", *(column.heading for column in TABLE)]]
    table += [[run["name"], *(column.text(run) for column in TABLE)] for run in data["runs"]]
    told = [
        "# Grading diabetic retinopathy",
        data["intended_use"],
        *map(_markdown, data["summary"]),
        *(f"**Warning.** {_markdown(warning)}" for warning in data["warnings"]),
        _table(table),
        "Brackets hold 95% intervals.",
        *_pairs(data["comparisons"]),
        *(f"**{item['title']}.** {_markdown(item['text'])}" for item in data["card"][1:]),
    ]
    return "\n\n".join(told) + "\n"


def _csv_row(run: Run) -> dict[str, Any]:
    plain = (
        "name", "architecture", "start", "epochs", "best_epoch", "size", "parameters",
        "multiply_adds", "seconds_per_epoch", "images_per_second", "split",
    )  # fmt: skip
    row = {key: run[key] for key in plain}
    record = run["record"]
    row["n"] = record.get("n")
    figures_of = {key: record.get(key) for key in ("accuracy", "qwk", "mean_absolute_error")}
    figures_of["referable_auc"] = (record.get("referable") or {}).get("auc")
    for key, found in figures_of.items():
        low, high = (found or {}).get("ci95") or (None, None)
        row |= {key: (found or {}).get("value"), f"{key}_low": low, f"{key}_high": high}
    return row


def _pairs(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    if not comparisons:
        return []
    table = [[heading for heading, _ in PAIRS]]
    table += [[text(pair) for _, text in PAIRS] for pair in comparisons]
    return [
        "First less second, on the same patients (paired bootstrap); McNemar: images that the "
        "first : the second alone got right; p of each column corrected for their number (Holm).",
        _table(table),
    ]


def _table(table: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first one the headings, in Markdown."""
    rows = ["| " + " | ".join(map(_markdown, row)) + " |" for row in table]
    return "\n".join([rows[0], "| --- " * len(table[0]) + "|", *rows[1:]])


def _markdown(text: str) -> str:
    """No character of a name may end a cell or begin a tag."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")


def _stacked(text: str) -> Markup:
    """A figure above its interval, so that a table of many stays narrow."""
    value, bracket, interval = text.partition(" (")
    if not bracket:
        return Markup.escape(text)
    return Markup("{} <small>({}</small>").format(value, interval)


def _calibrations(found: Mapping[str, Any] | None) -> list[tuple[str, Mapping[str, Any]]]:
    """ECE, Brier and NLL before and after the temperature, as far as they are known."""
    if not found:
        return []
    temperature = found.get("temperature")
    after = "" if temperature is None else f" after temperature {temperature:.3f}"
    before = found.get("before")
    return [*([(" before temperature", before)] if before else []), (after, found)]


def _matrices(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Row less column for every pair of three or more runs: {"title", "count", "rows"}.

    A row holds a cell a run: (difference, corrected p), or None on the diagonal and if undefined.
    """
    names, pairs = [run["name"] for run in data["runs"]], data["comparisons"]
    made = []
    for key, title in (("qwk", "QWK"), ("referable_auc", "Referable AUC")):
        cells = {}
        for pair in pairs:
            if found := pair[key]:
                cells[pair["a"], pair["b"]] = (found["difference"], found["p_holm"])
                cells[pair["b"], pair["a"]] = (-found["difference"], found["p_holm"])
        rows = [[cells.get((a, b)) for b in names] for a in names]
        if cells and len(names) > 2:
            made.append({"title": title, "count": len(cells) // 2, "rows": rows})
    return made


# ---------------------------------------------------------------- charts

Chart = dict[str, Any] | None  # {"title", "svg", "lines": for the legend}
_WORDS = {"train": "training", "val": "validation", "test": "testing"}


def comparison_lines(runs: Sequence[Run], first: str, metric: str) -> list[Line]:
    """A metric against epoch: for every run the split `first`, dashed, and testing.

    Validation stands for testing where there was none.
    """
    lines = []
    for i, run in enumerate(runs):
        last = "test" if _points(run, f"test_{metric}") else "val"
        for split in dict.fromkeys((first, last)):
            if points := _points(run, f"{split}_{metric}"):
                lines.append(Line(f"{run['name']}, {_WORDS[split]}", points, i, split != last))
    return lines


def roc_lines(runs: Sequence[Run]) -> list[Line]:
    """Chance, and the ROC of referable retinopathy of every run that has one."""
    chance = Line("chance", [(0, 0), (1, 1)], figures.NEUTRAL, True, marked=False)
    return [chance] + [
        Line(f"{run['name']}, AUC {_auc(run)}", run["curves"]["roc"], i)
        for i, run in enumerate(runs)
        if (run["curves"] or {}).get("roc")
    ]


def _comparison(runs: Sequence[Run]) -> list[Chart]:
    """The course's figure (accuracy against epoch in training and testing, every run), and QWK."""
    accuracy, qwk = (
        comparison_lines(runs, first, metric)
        for first, metric in (("train", "accuracy"), ("val", "qwk"))
    )
    return [
        _chart("Accuracy against epoch", accuracy, y_label="Accuracy", percent=True),
        _chart("QWK against epoch", qwk, y_label="QWK"),
        _time_against_quality(runs),
    ]


def _time_against_quality(runs: Sequence[Run]) -> Chart:
    """A point a run; nothing for a single run."""
    lines = [
        Line(f"{run['name']}, {run['seconds']:,.0f} s, QWK {number(qwk)}", [(minutes, qwk)], i)
        for i, run in enumerate(runs)
        if (qwk := value_of(run["record"], "qwk")) is not None
        and (minutes := (run["seconds"] or 0) / 60)
    ]
    if len(lines) < 2:
        return None
    return _chart(
        "QWK against time of training", lines, x_label="minutes", y_label="QWK", wide=True
    )


def _auc(run: Run) -> str:
    return figure((run["record"].get("referable") or {}).get("auc"))


def _run_charts(run: Run, style: int) -> list[dict[str, Any]]:
    """The charts of one run: loss and learning rate, and those that predictions give."""
    charts = [_loss(run, style), _learning_rate(run, style), _where_the_time_went(run, style)]
    if curves := run["curves"]:
        charts += [_roc(run, curves, style), _reliability(curves, style), _expected(curves, style)]
    return [chart for chart in charts if chart]


def _loss(run: Run, style: int) -> Chart:
    lines = [
        Line(_WORDS[split], points, style, split == "train")
        for split in ("train", "val")
        if (points := _points(run, f"{split}_loss"))
    ]
    return _chart("Loss against epoch", lines, y_label="loss")


def _learning_rate(run: Run, style: int) -> Chart:
    lines = [Line("learning rate", _points(run, "lr"), style)]
    return _chart("Learning rate against epoch", lines, y_label="learning rate")


def _where_the_time_went(run: Run, style: int) -> Chart:
    """Seconds of each epoch; their sums in the legend."""
    sums = [sum(row[k] for row in run["phases"]) for k in (1, 2)]
    lines = [
        Line(
            f"{what}: {total:,.0f} s ({percent(total / (sum(sums) or 1), 0)})",
            [(row[0], row[k]) for row in run["phases"]],
            style,
            k == 1,
        )
        for k, what, total in zip(
            (1, 2), ("training", "predicting validation and test"), sums, strict=True
        )
    ]
    return _chart("Where the time went", lines, y_label="seconds an epoch", from_zero=True)


def _roc(run: Run, curves: Mapping[str, Any], style: int) -> Chart:
    if not curves["roc"]:
        return None
    referable = run["record"].get("referable") or {}
    sensitivity = value_of(referable, "sensitivity")
    specificity = value_of(referable, "specificity")
    lines = [
        Line("chance", [(0, 0), (1, 1)], figures.NEUTRAL, True, marked=False),
        Line(f"AUC {_auc(run)}", curves["roc"], style, marked=False),
    ]
    if sensitivity is not None and specificity is not None:
        threshold = number(referable.get("threshold"))
        name = (
            f"operating point {threshold}: sensitivity {percent(sensitivity)}, "
            f"specificity {percent(specificity)}"
        )
        lines.append(Line(name, [(1 - specificity, sensitivity)], style))
    return _chart(
        "Referable retinopathy: ROC",
        lines,
        x_label="1 − specificity",
        y_label="sensitivity",
        square=True,
    )


def _reliability(curves: Mapping[str, Any], style: int) -> Chart:
    lines = [Line("perfect", [(0, 0), (1, 1)], figures.NEUTRAL, True, marked=False)]
    for when, dashed in (("before", True), ("after", False)):
        if bins := curves["reliability"][when]:
            points = [(confidence, right) for confidence, right, _ in bins]
            lines.append(Line(f"{when} temperature", points, style, dashed))
    return _chart(
        "Reliability: is 80% sure right in 80%?",
        lines,
        x_label="probability of the likeliest grade",
        y_label="share right",
        square=True,
    )


def _expected(curves: Mapping[str, Any], style: int) -> Chart:
    rows = [
        (f"{grade} {name}", counts)
        for grade, (name, counts) in enumerate(zip(grades.NAMES, curves["expected"], strict=True))
    ]
    return {
        "title": "Expected grade by true grade",
        "svg": figures.ridges(rows, (0, grades.NUM_GRADES - 1), "expected grade", style),
        "lines": [],
    }


def _chart(title: str, lines: Sequence[Line], **how: Any) -> Chart:
    """A chart with its legend and a description for those who cannot see it."""
    described = f"{title}. " + ". ".join(
        f"{line.name}: from {line.points[0][1]:.3g} to {line.points[-1][1]:.3g}"
        for line in lines
        if line.points
    )
    svg = figures.line_chart(lines, described=described, **how)
    return {"title": title, "svg": svg, "lines": lines} if svg else None


def _points(run: Run, column: str) -> list[tuple[float, float]]:
    return [
        (row["epoch"], row[column])
        for row in run["history"]
        if row.get("epoch") is not None and row.get(column) is not None
    ]
