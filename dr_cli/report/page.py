"""The dictionary of `reading.collect` -> an HTML page, a Markdown text, a CSV table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from dr_cli import grades
from dr_cli.formulas import defuse_table
from dr_cli.plots import heat
from dr_cli.report import alarm, answers, band, charts, gallery, prose, svg
from dr_cli.report.figures import find_figure, find_value, show
from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.record import Record
from dr_cli.words import (
    difference,
    figure,
    mcnemar,
    number,
    p_value,
    percent,
    scaled,
    signed,
    visible,
)


@dataclass(frozen=True)
class Column:
    """A column of a table: where in a row of runs or of pairs it stands, how it is written."""

    heading: str
    name: str
    write: Callable[[Any], str] = str

    def value(self, row: Record) -> Any:
        """What sorts the table."""
        return find_value(row, self.name)

    def text(self, row: Record) -> str:
        """What stands in it."""
        return self.write(find_figure(row, self.name))


TABLE = (
    Column("Architecture", "architecture"),
    Column("Start", "start"),
    *(
        Column(
            FIGURES[name].heading,
            f"record.{name}",
            partial(figure, as_percent=FIGURES[name].percent),
        )
        for name in ("qwk", "accuracy", "referable.auc")
    ),
    Column("Epochs", "epochs", number),
    Column("Seconds an epoch", "seconds_per_epoch", partial(number, digits=1)),
    Column("Images/s", "images_per_second", partial(number, digits=1)),
    Column("Parameters", "parameters", partial(scaled, by=1e6, unit="M")),
    Column("Multiply-adds", "multiply_adds", partial(scaled, by=1e9, unit="G")),
)
PAIRS = (
    Column("First", "a"),
    Column("Second", "b"),
    Column("QWK", "qwk", difference),
    Column("Referable AUC", "referable_auc", difference),
    Column("McNemar, referable", "mcnemar_referable", mcnemar),
    Column("McNemar, grade", "mcnemar_grade", mcnemar),
)


def render(data: Record) -> str:
    """One self-contained HTML page of what `collect` returned: no network, no library."""
    best = next(run for run in data["runs"] if run["name"] == data["best"])
    return _load_template().render(
        data=data, best=best, names=grades.NAMES, columns=TABLE, pairs=PAIRS, figures=FIGURES,
        show=show, find_figure=find_figure, name_decision=prose.name_decision,
        matrices=_tabulate_differences(data),
        tiles=band.list_tiles(best["record"]), charts=charts.compare_runs(data["runs"], best),
        charts_of=charts.describe_run, swatch=svg.draw_swatch, questions=answers.QUESTIONS,
        of_confusion=answers.of_confusion, zip=zip, tell_alarm=alarm.tell_alarm,
        tabulate_alarm=alarm.tabulate_alarm, tabulate_units=alarm.tabulate_units,
        heat=heat.VIRIDIS.split()[::3], heat_opacity=heat.STRONGEST, most_bytes=gallery.MOST_BYTES,
    )  # fmt: skip


@cache
def _load_template() -> jinja2.Template:
    """Compiled once: that takes ten times as long as a page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("dr_cli.report", "."), undefined=jinja2.StrictUndefined,
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_make_visible,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "number": number, "figure": figure, "p_value": p_value,
        "signed": signed, "stacked": _stack, "shade": svg.shade,
    }  # fmt: skip
    return environment.get_template("page.html.jinja")


def _make_visible(value: Any) -> Any:
    """Names in a page are escaped by autoescape; what turns or hides letters beside them, here."""
    return type(value)(visible(value)) if isinstance(value, str) else value


def to_csv(data: Record) -> str:
    """A row a run: plain numbers, with the ends of the interval beside each figure."""
    table = pd.DataFrame([_csv_row(run) for run in data["runs"]], dtype=object)
    return defuse_table(table).to_csv(index=False, lineterminator="\n")


def _csv_row(run: Record) -> Record:
    plain = (
        "name", "architecture", "start", "epochs", "best_epoch", "size", "parameters",
        "multiply_adds", "seconds_per_epoch", "images_per_second", "split",
    )  # fmt: skip
    row = {key: run[key] for key in plain} | {"n": run["record"]["n"]}
    for name in ("accuracy", "qwk", "mean_absolute_error", "referable.auc"):
        key, found = name.replace(".", "_"), find_figure(run["record"], name) or {}
        low, high = found.get("ci95") or (None, None)
        row |= {key: found.get("value"), f"{key}_low": low, f"{key}_high": high}
    return row


def to_markdown(data: Record) -> str:
    """Intended use, summary, warnings, the table of runs and that of pairs."""
    told = [
        "# Grading diabetic retinopathy",
        data["intended_use"],
        *map(escape, data["summary"]),
        *(f"**Warning.** {escape(warning)}" for warning in data["warnings"]),
        *(
            f"**Left out: {escape(run['name'])}.** {escape(run['reason'])}."
            for run in data["left_out"]
        ),
        tabulate((Column("Run", "name"), *TABLE), data["runs"]),
        "Brackets hold 95% intervals.",
    ]
    if data["comparisons"]:
        told += [
            "First less second, on the same patients, by the signs of their shares; McNemar: "
            "images that the first : the second alone got right; p of each column corrected for "
            "all pairs (max T).",
            tabulate(PAIRS, data["comparisons"]),
        ]
    told += [f"**{item['title']}.** {escape(item['text'])}" for item in data["card"][1:]]
    return "\n\n".join(told) + "\n"


def tabulate(columns: Sequence[Column], rows: Sequence[Record]) -> str:
    """A table in Markdown."""
    cells = [[column.heading for column in columns]]
    cells += [[column.text(row) for column in columns] for row in rows]
    told = ["| " + " | ".join(map(escape, row)) + " |" for row in cells]
    return "\n".join([told[0], "| --- " * len(columns) + "|", *told[1:]])


def escape(text: str) -> str:
    """In Markdown no character of a name may end a cell or begin a tag."""
    text = visible(text)
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, "\\" + mark)
    return text.replace("\n", " ")


def _stack(text: str) -> Markup:
    """A figure above its interval, so that a table of many stays narrow."""
    value, bracket, interval = text.partition(" (")
    if not bracket:
        return Markup.escape(text)
    return Markup("{} <small>({}</small>").format(value, interval)


def _tabulate_differences(data: Record) -> list[Record]:
    """Row less column for every pair of three or more runs: {"title", "count", "rows"}.

    A row holds a cell a run: (difference, corrected p), or None on the diagonal and if undefined.
    """
    names, pairs = [run["name"] for run in data["runs"]], data["comparisons"]
    found = []
    for key, title in (("qwk", "QWK"), ("referable_auc", "Referable AUC")):
        cells = {
            (pair["a"], pair["b"]): (pair[key]["difference"], pair[key]["p_adjusted"])
            for pair in pairs
            if pair[key]
        }
        cells |= {(b, a): (-difference, p) for (a, b), (difference, p) in cells.items()}
        rows = [[cells.get((a, b)) for b in names] for a in names]
        if cells and len(names) > 2:
            found.append({"title": title, "count": len(cells) // 2, "rows": rows})
    return found
