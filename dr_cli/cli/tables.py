"""Records -> tables for a terminal of 80 columns. Rich is imported where a table is made.

Numbers are said as on the page and in Markdown, by `words`.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from dr_cli import words

if TYPE_CHECKING:
    from rich.table import Table

Record = Mapping[str, Any]
Cell = str | tuple[str, str]  # a text, or a text and its style
CALIBRATION = {  # heading -> figure of a probability
    "calibration slope": "slope",
    "calib. intercept": "intercept",
    "observed/expected": "observed_expected",
}
Figure = tuple[str, float | None, list[float] | None]  # name, value, 95% interval


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> "Table":
    """A table without a frame; a column whose heading begins with ">" stands to the right.

    No cell is markup: a photograph may be called `[b].jpg`.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=Text(title) if title else None, box=box.SIMPLE)
    for column in columns:
        justify: Any = "right" if column.startswith(">") else "left"
        drawn.add_column(Text(column.lstrip(">")), justify=justify, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text.assemble, row))
    return drawn


def print_tables(*parts: "Table | str", file: TextIO | None = None) -> None:
    """Prints tables and lines on stdout, or where `file` says."""
    from rich.console import Console

    console = Console(file=file or sys.stdout, highlight=False)
    for part in parts:
        console.print(part, markup=False)


def figures_table(record: Record, figures: Iterable[Figure]) -> "Table":
    """The figures of a record, a row each."""
    title = f"{record['run'] or record['data']}, {record['split']}: {record['n']:,} images"
    rows = (
        (name, words.number(value), " to ".join(map(words.number, interval or ())))
        for name, value, interval in figures
    )
    return table(title, ("figure", ">value", ">95% interval"), rows)


def screening_table(record: Record) -> "Table":
    """What alarms are worth to those who get them, and whether their probabilities can be
    believed, by target."""
    told = [_tell_screening(record[name]) for name in ("referable", "sight_threatening")]
    rows = [[heading, *(one.get(heading, "n/a") for one in told)] for heading in told[0]]
    return table("Screening, image by image", ("", ">referable", ">sight-threatening"), rows)


def _tell_screening(target: Record) -> dict[str, str]:
    """Heading -> cell; nothing of a target that the table says nothing of."""
    counts, judged = target["counts"], target["calibration"] or {}
    if counts is None:
        return {}
    told = {
        "threshold": words.number(target["threshold"]),
        "true, false alarms": f"{counts['tp']:,}, {counts['fp']:,}",
        "missed, rightly passed": f"{counts['fn']:,}, {counts['tn']:,}",
        "prevalence": words.percent(target["prevalence"]),
        "PPV": words.figure(target["ppv"]),
        "NPV": words.figure(target["npv"]),
        "likelihood ratio +": words.figure(target["likelihood_ratio_positive"]),
        "likelihood ratio −": words.figure(target["likelihood_ratio_negative"]),
    }
    for at in target["at_prevalence"]:
        where = words.percent(at["prevalence"], 0 if at["prevalence"] * 100 % 1 < 1e-9 else 1)
        told |= {f"{name} at {where}": words.figure(at[name.lower()]) for name in ("PPV", "NPV")}
    for heading, name in CALIBRATION.items():
        if name in judged:
            told[heading] = words.figure(judged[name])
    return told


def patients_table(record: Record) -> "Table":
    """The figures of each patient's worst eye."""
    found = record["per_patient"]
    rows: list[list[Cell]] = [[name, words.figure(found[name])] for name in ("accuracy", "qwk")]
    for name in ("referable", "sight_threatening"):
        rows += [[f"{name}.{key}", words.figure(value)] for key, value in found[name].items()]
    return table(f"Each patient's worst eye: {found['n']:,} patients", ("figure", ">value"), rows)


def confusion_table(record: Record) -> "Table":
    """Counts and percentages of their row; what was graded right is bold."""
    names = [f"{entry['grade']} {entry['name']}" for entry in record["per_grade"]]
    rows: list[list[Cell]] = []
    for k, (name, counts) in enumerate(zip(names, record["confusion"], strict=True)):
        total = sum(counts)
        cells = [f"{n} ({words.percent(n / total, 0)})" if total else f"{n}" for n in counts]
        rows.append([name, *cells[:k], (cells[k], "bold"), *cells[k + 1 :]])
    columns = ["true \\ predicted", *(f">{name}" for name in names)]
    return table("Confusion: rows true, columns predicted", columns, rows)


def groups_table(groups: Record) -> "Table":
    """The figures of each group of `--by`, their intervals below them: beside is no room."""
    rows = []
    for group in groups["groups"]:
        value = "not known" if group["value"] is None else str(group["value"])
        figures = (group["accuracy"], group["qwk"], group["referable"]["auc"])
        shown = [words.figure(figure).replace(" (", "\n(") for figure in figures]
        rows.append([value, words.number(group["n"]), *shown])
    columns = (groups["column"], ">images", "accuracy", "qwk", "referable AUC")
    return table(f"by {groups['column']}", columns, rows)


def pair_table(pair: Record) -> "Table":
    """A comparison of two runs; p is Holm's, for as many pairs as there are."""
    differences, tests = ("qwk", "referable_auc"), ("mcnemar_referable", "mcnemar_grade")
    rows = [(name, words.difference(pair[name])) for name in differences if pair[name]]
    rows += [(name, words.mcnemar(pair[name])) for name in tests if pair[name]]
    columns = ("test", "difference, or right alone; p by Holm")
    return table(f"{pair['a']} − {pair['b']}", columns, rows)


def runs_table(data: Record) -> "Table":
    """The runs of a report, with as much as 80 columns hold."""
    from dr_cli.report import page

    wanted = ("QWK", "Accuracy", "Referable AUC")
    columns = [column for column in page.TABLE if column.heading in wanted]
    rows = ((run["name"], *(column.text(run) for column in columns)) for run in data["runs"])
    return table("", ("Run", *(column.heading for column in columns)), rows)


def audit_tables(record: Record) -> list["Table | str"]:
    """What a dry run found, and its plan: a table of the splits, and lines."""
    from dr_cli.grades import NAMES
    from dr_cli.training.audit import problems

    rows = []
    for split, found in record["splits"].items():
        patients = "not known" if found["patients"] is None else words.number(found["patients"])
        grades = map(words.number, found["grade_counts"])
        rows.append([split, words.number(found["n"]), patients, *grades])
    columns = ("split", ">images", ">patients", *(f">{name}" for name in NAMES))
    splits = table(f"{record['root']}: {record['layout']}", columns, rows)
    lines = [*_tell_data(record), *(f"warning: {problem}" for problem in problems(dict(record)))]
    return [splits, *lines, *([_tell_plan(record["plan"])] if record["plan"] else [])]


def _tell_data(record: Record) -> list[str]:
    lines = [f"{record['rows']:,} rows, {record['images_found']:,} images found"]
    lines += [f"left out: {n:,} ({reason})" for reason, n in record["left_out"].items()]
    if record["sizes"]:
        sides = (record["sizes"][side] for side in ("width", "height"))
        low, middle, high = map("{}×{}".format, *sides)
        lines.append(f"sizes: {low} to {high}, median {middle}")
    doubles = record["duplicates"]
    groups = (
        "{exact_groups} exact groups, {near_groups} near, {conflicting_groups} with conflicting "
        "grades"
    )
    looked = doubles["exact_groups"] is not None
    told = groups.format(**doubles) if looked else "not looked for, as no image is here"
    lines.append(f"duplicates: {told}")
    for name, pair in record["baselines"].items():
        if pair is not None:
            shown = ", ".join(f"{key} {words.number(value)}" for key, value in pair.items())
            lines.append(f"baseline on {record['judged_on']}, {name.replace('_', ' ')}: {shown}")
    return lines


def _tell_plan(plan: Record) -> str:
    memory = "" if plan["memory_bytes"] is None else f", {plan['memory_bytes'] / 2**30:.1f} GiB"
    return (
        f"plan: {plan['arch']}, {plan['size']} px, batch {plan['batch_size']}, "
        f"{plan['epochs']} epochs of {plan['steps_per_epoch']} steps on {plan['device']} in "
        f"{plan['precision']}: about {plan['seconds_per_epoch']:.0f} s an epoch{memory}"
    )
