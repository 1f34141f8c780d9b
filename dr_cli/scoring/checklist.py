"""Which items of STARD-AI a record answers, and where; the others are the author's to write.

The items are those of Table 2 of Sounderajah et al., Nature Medicine 2025, 31:3283-3289
(doi:10.1038/s41591-025-03953-8), by their numbers, in words of our own; beside them the like ones
of TRIPOD+AI (Collins et al., BMJ 2024, 385:e078378). A record says what was measured: no item is
more than a place to look, and whether the text that it goes into is good is not asked here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

SOURCE = "STARD-AI, doi:10.1038/s41591-025-03953-8; TRIPOD+AI, doi:10.1136/bmj-2023-078378"
AUTHOR = "the author"
RUN = "RUN/"  # what stands in the run's folder, not in the record


@dataclass(frozen=True)
class Item:
    """One row of the checklist."""

    number: str
    asks: str
    tripod: str = ""
    """The items of TRIPOD+AI that ask alike."""
    where: tuple[str, ...] = ()
    """Fields of the record ("referable.counts"), or files of the run's folder after `RUN`."""
    rest: str = ""
    """What of it the record cannot say."""


ITEMS = (
    Item("1", "a title or abstract that names the study and a measure of accuracy", "1"),
    Item("2", "a structured abstract", "2"),
    Item("3", "background, intended use, place in the clinic's work", "3a 3b"),
    Item("4", "objectives", "4"),
    Item("5", "whether data were gathered before or after the test was planned"),
    Item("6", "approval by an ethics committee", "17"),
    Item("7", "who and what was let in and left out", "6b", ("flow",), "criteria for people"),
    Item("8", "how eligible people were found"),
    Item("9", "where and when they were found", "5b 6a"),
    Item("10", "whether they came consecutively, at random or by convenience"),
    Item("11", "where the data come from", "5a", ("data",), "how and why they were collected"),
    Item("12", "who graded the images, and how", "8b"),
    Item("13", "cameras, and software with versions", "", (f"{RUN}config.json",), "the cameras"),
    Item("14", "acquisition and preprocessing", "7", (f"{RUN}config.json",), "acquisition"),
    Item("15a", "the test itself, to be repeated", "12c 22",
         (f"{RUN}config.json", f"{RUN}model.safetensors")),
    Item("15b", "its training, validation and testing, with sizes", "12a 21",
         (f"{RUN}config.json", "flow")),
    Item("15c", "cut-offs, and how they were chosen", "15",
         ("referable.threshold", "referable.threshold_from", "referable.rule"),
         "whether before or after looking"),
    Item("15d", "who is to use it, and what they must know", "27b"),
    Item("16a", "the reference standard, to be repeated", "8a"),
    Item("16b", "why that reference standard"),
    Item("16c", "its categories", "8a", ("per_grade",), "why these; referable is grade 2 or more"),
    Item("17a", "what was known to those who ran the test"),
    Item("17b", "what was known to those who graded", "8c"),
    Item("18", "how accuracy was estimated and compared", "12e", ("bootstrap",)),
    Item("19", "how ungradable images were handled", "27a", ("ungradable",)),
    Item("20", "how missing data were handled", "11", ("flow", "failed")),
    Item("21", "how accuracy varies", "12d 23b", ("subgroups",), "whether it was planned"),
    Item("22", "the sample size, and why", "10"),
    Item("23", "analyses of errors, bias, fairness", "14", ("subgroups",), "which groups matter"),
    Item("24", "the flow of participants", "20a", ("flow",)),
    Item("25", "characteristics of each part of the data", "20b", ("patients", "flow"),
         "age, sex, and what else is known of the people"),
    Item("26a", "how severe the disease is", "20a", ("grade_counts",)),
    Item("26b", "what else those without the disease have"),
    Item("27", "time and treatment between test and reference standard", "6c"),
    Item("28", "whether the data are like those it is meant for", "5a",
         ("referable.prevalence", "referable.at_prevalence"), "the prevalence where it is used"),
    Item("29", "how external data differ from those trained on", "16 20c"),
    Item("30", "test results against the reference standard", "",
         ("confusion", "referable.counts", "sight_threatening.counts")),
    Item("31", "accuracy with intervals", "23a",
         ("qwk", "referable.auc", "referable.sensitivity", "referable.specificity",
          "referable.ppv", "referable.calibration", "per_grade", "per_patient")),
    Item("32", "harm done by the test or the reference standard"),
    Item("33", "limits: bias, uncertainty, whom it holds for", "26",
         ("warnings", "baselines", "leaks"), "all that the numbers do not show"),
    Item("34", "what it means for practice", "25 27c"),
    Item("35", "ethics and fairness of its use", "25"),
    Item("36", "registration", "18d"),
    Item("37", "where the protocol is", "18c"),
    Item("38", "funding", "18a"),
    Item("39", "commercial interests", "18b"),
    Item("40a", "whether data and code can be had", "18e 18f", (f"{RUN}config.json",),
         "where they are, under which terms; the fingerprint says which rows"),
    Item("40b", "whether outputs are kept and can be audited", "",
         (f"{RUN}predictions-test.csv", f"{RUN}predictions-val.csv")),
)  # fmt: skip


def check_record(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each item: {"item", "asks", "tripod", "answered", "where", "missing", "author"}.

    answered: "yes", "in part" (`author` says what is left to write), "not here" (`missing` are the
    fields that could say it and are null in this record), or "no": the author's alone. A file
    of a run counts where the record is of a run.
    """
    rows = []
    for item in ITEMS:
        there = [where for where in item.where if _holds(record, where)]
        missing = [where for where in item.where if where not in there]
        author = item.rest if item.where else AUTHOR
        if not item.where:
            answered = "no"
        elif not there:
            answered = "not here"
        else:
            answered = "in part" if author or missing else "yes"
        rows.append(
            {"item": item.number, "asks": item.asks, "tripod": item.tripod, "answered": answered,
             "where": there, "missing": missing, "author": author or None}
        )  # fmt: skip
    return rows


def tell(row: Mapping[str, Any]) -> str:
    """Where a row is answered, and what is left to the author, for a table's cell."""
    if row["answered"] == "no":
        return AUTHOR
    return "; ".join(_tell_parts(row))


def _tell_parts(row: Mapping[str, Any]) -> Iterator[str]:
    if row["where"]:
        yield ", ".join(row["where"])
    if row["missing"]:
        yield f"not in this record: {', '.join(row['missing'])}"
    if row["author"]:
        yield f"{AUTHOR}: {row['author']}"


def _holds(record: Any, where: str) -> bool:
    """Whether a record has a field that is neither null nor empty nor undefined."""
    if where.startswith(RUN):
        split = where.removeprefix(f"{RUN}predictions-").removesuffix(".csv")
        own = record["split"] in (split, "all") or "predictions" not in where
        return record["run"] is not None and own
    for key in where.split("."):
        record = record.get(key) if isinstance(record, Mapping) else None
    if isinstance(record, Mapping) and "value" in record:
        return record["value"] is not None
    return record is not None and record != []
