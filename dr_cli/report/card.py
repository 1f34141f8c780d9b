"""The model card of one run, or of weights without theirs, in Markdown: what it is, what it learned
from, what it reaches, and where it ends. In the sentences of the report."""

from collections.abc import Iterator
from pathlib import Path

from dr_cli.grades import Threshold
from dr_cli.network.novelty import HELD, Familiar, read_familiar
from dr_cli.photographs.crop import Preprocessing
from dr_cli.report import prose
from dr_cli.report.figures import find_figure, show
from dr_cli.report.page import Column, escape, tabulate
from dr_cli.report.reading import collect
from dr_cli.runs import ModelRecord, count_parameters, read_record
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
OUTPUT = "a probability for each of five grades (ICDR, 0–4), a grade, an alarm"
NO_FIGURES = (
    "Not known: weights hold no figures. Those of the run that they come from are in its folder "
    "(dr eval RUN --card); on graded photographs of your own, dr predict PHOTOGRAPHS --run FILE | "
    "dr eval --predictions - --labels TABLE gives them."
)
DRAWN = (
    "It has seen drawn eyes alone, no photographs: what it says of a photograph of a patient means "
    "nothing."
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
        _tabulate_what(_describe(run)),
        f"## What it reaches{' on other photographs' if elsewhere else ''}",
        *map(escape, prose.summarise(run, 1, "")),
        tabulate(REACHES, list(_figures(run["record"]))),
        tabulate(GRADES, list(map(_grade, run["record"]["per_grade"]))),
        *(f"**Warning.** {escape(told)}" for told in record["warnings"]),
    ]
    for item in prose.write_card([run])[1:]:
        parts += [f"## {item['title']}", escape(item["text"])]
    return "\n\n".join(parts) + "\n"


def write_of_weights(source: Path) -> str:
    """The card of a model.safetensors, or of a folder that holds nothing else of its run: what its
    metadata tell, and what they do not.

    Raises UsageError where it is no grader of dr, DrError where its preprocessing is another's.
    """
    record = read_record(source)
    familiar, parameters = read_familiar(source, record), count_parameters(source)
    absent = "\n".join(f"- {escape(what)}" for what in _list_absent(record))
    learned = record.trained_on
    data = f"{learned.name}; fingerprint {learned.fingerprint}." if learned else "Not known."
    parts = [
        f"# Model card: {escape(source.resolve().name)}",
        prose.INTENDED_USE,
        _tabulate_what(_describe_weights(record, parameters, familiar)),
        *([f"**Warning.** {DRAWN}"] if learned and learned.drawn else []),
        f"## What it reaches\n\n{NO_FIGURES}",
        f"## Data\n\n{escape(data)}",
        f"## What the file does not tell\n\n{absent}",
        f"## Out of scope\n\n{prose.OUT_OF_SCOPE}",
        f"## Limits\n\n{prose.LIMITS}",
    ]
    return "\n\n".join(parts) + "\n"


def _tabulate_what(rows: Iterator[tuple[str, str]]) -> str:
    return tabulate(WHAT, [{"what": what, "told": told} for what, told in rows])


def _describe(run: Record) -> Iterator[tuple[str, str]]:
    """What it is and how it decides."""
    epoch = "" if run["best_epoch"] is None else f", weights of epoch {run['best_epoch']}"
    size = scaled(run["parameters"], 1e6, "M")
    yield "network", f"{run['architecture']} from {run['start']}, {size} parameters{epoch}"
    yield "input", _tell_input(Preprocessing.from_dict(run["preprocessing"]))
    yield "output", OUTPUT
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


def _describe_weights(
    record: ModelRecord, parameters: int, familiar: Familiar | None
) -> Iterator[tuple[str, str]]:
    """The same of weights alone, as far as their metadata tell."""
    epoch = "" if record.epoch is None else f", weights of epoch {record.epoch}"
    yield "network", f"{record.arch}, {scaled(parameters, 1e6, 'M')} parameters{epoch}"
    yield "input", _tell_input(Preprocessing.from_dict(record.preprocessing))
    yield "output", OUTPUT
    chosen = record.calibration
    grade = prose.name_decision(chosen.to_record())
    if chosen.cuts:
        objective = chosen.objective.replace("qwk", "QWK")
        grade += f" at {', '.join(map(number, chosen.cuts))}, chosen for {objective}"
    yield "grade", grade
    if (fellow := chosen.fellow) is not None:
        yield "both eyes", f"graded together, the other eye with weight {number(fellow.weight)}"
    if point := chosen.operating_point:
        yield "referable", _tell_threshold(point.referable)
        if point.sight_threatening:
            yield "sight-threatening", _tell_threshold(point.sight_threatening)
    else:
        yield "referable", f"from probability {number(0.5)}, which nothing has chosen"
    yield "temperature", number(chosen.temperature)
    if familiar:
        yield (
            "novelty",
            f"told of each photograph by {len(familiar.spread)} directions of the network's "
            f"features: above 1 is further from those that it learned from than {HELD}% of the "
            "run's held-out ones",
        )


def _list_absent(record: ModelRecord) -> Iterator[str]:
    """What a card should say, and these weights do not."""
    yield "figures, and the images that they would be of"
    yield "how many photographs and patients it learned from, their grades, splits and leaks"
    yield "what its training started from, which may have seen other photographs"
    yield "the options of the training, the versions and the machine"
    if record.trained_on is None:
        yield "the data set that it learned from"
    if record.epoch is None:
        yield "the epoch that was kept"
    if record.calibration.operating_point is None:
        yield "an operating point: no threshold was chosen on validation images"
    if record.familiar is None:
        yield "what photographs look like to it that it learned from: it tells no novelty"


def _tell_input(way: Preprocessing) -> str:
    cut = "whole" if way.field == "whole" else "cropped to its field"
    return f"a photograph, {cut}, {way.size}×{way.size} px, light {way.illumination}"


def _tell_threshold(threshold: Threshold) -> str:
    """From where on, by which rule, and what that reached on the images that chose it."""
    told = f"from probability {number(threshold.value)} ({threshold.rule})"
    rates = {"sensitivity": threshold.sensitivity, "specificity": threshold.specificity}
    known = [f"{name} {number(rate)}" for name, rate in rates.items() if rate is not None]
    return f"{told}; {', '.join(known)} on the images that chose it, optimistic" if known else told


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
