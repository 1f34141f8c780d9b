"""The model card of one run, in Markdown: what it is, what it learned from, what it reaches, and
where it ends. In the sentences of the report."""

from collections.abc import Iterator
from pathlib import Path

from dr_cli.report import prose
from dr_cli.report.figures import find_figure, show
from dr_cli.report.page import Column, escape, tabulate
from dr_cli.report.reading import collect
from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.record import Record
from dr_cli.words import figure, number, scaled

WHAT = (Column("What", "what"), Column("It is", "told"))
REACHES = (Column("Figure", "what"), Column("Value, 95% interval", "told"))
GRADES = (
    Column("Grade", "name"),
    Column("Images", "support", number),
    *(
        Column(heading, heading.lower(), figure)
        for heading in ("Precision", "Recall", "Specificity", "AUC")
    ),
)


def write(folder: Path, record: Record, elsewhere: bool) -> str:
    """The card of a finished run, with the figures of a record of `dr eval`; it shows no photograph
    and no patient. elsewhere: whether they are of other photographs than the run's own.

    Raises UsageError where the run is not finished or is damaged.
    """
    run = collect([folder])["runs"][0]
    run = run | {"record": record, "split": record["split"]}
    parts = [
        f"# Model card: {escape(run['name'])}",
        prose.INTENDED_USE,
        tabulate(WHAT, [{"what": what, "told": told} for what, told in _describe(run)]),
        f"## What it reaches{' on other photographs' if elsewhere else ''}",
        *map(escape, prose.summarise(run, 1, "")),
        tabulate(REACHES, list(_figures(run["record"]))),
        tabulate(GRADES, list(map(_grade, run["record"]["per_grade"]))),
        *(f"**Warning.** {escape(told)}" for told in record["warnings"]),
    ]
    for item in prose.write_card([run])[1:]:
        parts += [f"## {item['title']}", escape(item["text"])]
    return "\n\n".join(parts) + "\n"


def _describe(run: Record) -> Iterator[tuple[str, str]]:
    """What it is and how it decides."""
    epoch = "" if run["best_epoch"] is None else f", weights of epoch {run['best_epoch']}"
    size = scaled(run["parameters"], 1e6, "M")
    yield "network", f"{run['architecture']} from {run['start']}, {size} parameters{epoch}"
    light = run["preprocessing"].get("illumination", "kept")
    side = run["size"]
    yield "input", f"a photograph, cropped to its field, {side}×{side} px, light {light}"
    yield "output", "a probability for each of five grades (ICDR, 0–4), a grade, an alarm"
    yield "grade", prose.name_decision(run)
    for target in ("referable", "sight_threatening"):
        found = run["record"].get(target) or {}
        if found.get("threshold") is not None:
            why = ", ".join(filter(None, (found.get("rule"), found.get("threshold_from"))))
            told = f"from probability {number(found['threshold'])} ({why})"
            yield target.replace("_", "-"), told
    yield "temperature", number(run["record"]["calibration"].get("temperature"))
    made = run["made_with"]
    yield "made with", ", ".join(f"{name} {value}" for name, value in made.items() if value)


def _figures(record: Record) -> Iterator[Record]:
    for name, known in FIGURES.items():
        if find_figure(record, name) is None:
            continue
        if name.startswith("calibration."):  # plain numbers there
            error = name.split(".")[1]
            interval = (record["calibration"].get("ci95") or {}).get(error)
            told = figure({"value": record["calibration"].get(error), "ci95": interval})
        else:
            told = show(record, name)
        yield {"what": known.heading, "told": told}


def _grade(row: Record) -> Record:
    """A row of `per_grade`, each figure with its interval."""
    ends = row.get("ci95") or {}
    told = {"name": f"{row['grade']} {row['name']}", "support": row["support"]}
    return told | {
        name: {"value": row[name], "ci95": ends.get(name)}
        for name in ("precision", "recall", "specificity", "auc")
    }
