"""What an alarm is worth to a clinic, and the figures on other units than the image: as tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dr_cli.report.figures import find_figure, show
from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.record import Record
from dr_cli.words import figure, number, percent

TARGETS = {"referable": "Referable", "sight_threatening": "Sight-threatening"}
UNITS = {  # where a record holds the figures of other units -> their heading
    "per_patient": "Patients, worst eye",
    "without_leaks": "Images that do not leak",
    "ungradable.without": "Gradable images",
}


@dataclass(frozen=True)
class Table:
    """Headings, and rows of as many texts."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]


def tabulate_alarm(record: Record) -> Table | None:
    """2×2 counts, predictive values and calibration of each target; None in older records."""
    targets = {name: record.get(name) or {} for name in TARGETS}
    known = {name: target for name, target in targets.items() if target.get("counts")}
    if not known:
        return None
    told = [_describe_target(target) for target in known.values()]
    rows = [[heading, *(column.get(heading, "n/a") for column in told)] for heading in told[0]]
    return Table(["", *(TARGETS[name] for name in known)], rows)


def tell_alarm(record: Record) -> str:
    """What whoever is called, or passed, may expect, in a line; "" in older records."""
    target = record.get("referable") or {}
    if not (counts := target.get("counts")):
        return ""
    called, passed = counts["tp"] + counts["fp"], counts["fn"] + counts["tn"]
    return (
        f"of {called:,} images called referable {counts['tp']:,} are "
        f"(PPV {percent(target['ppv']['value'])}), of {passed:,} passed {counts['tn']:,} are "
        f"rightly so (NPV {percent(target['npv']['value'])})"
    )


def tabulate_units(record: Record) -> Table | None:
    """The headline figures of the images, beside those of other units; None without any."""
    units = {name: find_figure(record, name) for name in UNITS}
    known = {name: unit for name, unit in units.items() if unit and unit.get("n")}
    if not known:
        return None
    parts = [record, *known.values()]
    names = [name for name in FIGURES if not name.startswith("calibration.")]
    rows = [
        [FIGURES[name].heading, *(show(part, name) for part in parts)]
        for name in names
        if find_figure(record, name) is not None
    ]
    counts = ["Number", *(number(part["n"]) for part in parts)]
    return Table(["", "Images", *(UNITS[name] for name in known)], [counts, *rows])


def _describe_target(target: Mapping[str, Any]) -> dict[str, str]:
    """Heading -> text, in the order of the table."""
    counts, judged = target["counts"], target.get("calibration") or {}
    told = {
        "Called from probability": number(target.get("threshold")),
        "Diseased and called (TP)": number(counts["tp"]),
        "Diseased and missed (FN)": number(counts["fn"]),
        "Healthy and called (FP)": number(counts["fp"]),
        "Healthy and passed (TN)": number(counts["tn"]),
        "Prevalence here": percent(target.get("prevalence")),
    }
    for name, heading, write in _RATES:
        told[heading] = write(target.get(name))
    for at in target.get("at_prevalence") or ():
        where = f"at a prevalence of {100 * at['prevalence']:.3g}%"
        told[f"PPV {where}"] = _as_percent(at["ppv"])
        told[f"NPV {where}"] = _as_percent(at["npv"])
    told |= {heading: figure(judged.get(name)) for name, heading in _CALIBRATION.items()}
    return told | {"ECE of this probability": number(judged.get("ece"))}


def _as_percent(record: Mapping[str, Any] | None) -> str:
    return figure(record, as_percent=True)


_RATES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("sensitivity", "Sensitivity", _as_percent),
    ("specificity", "Specificity", _as_percent),
    ("ppv", "PPV: diseased of the called", _as_percent),
    ("npv", "NPV: healthy of the passed", _as_percent),
    ("likelihood_ratio_positive", "Likelihood ratio, called", figure),
    ("likelihood_ratio_negative", "Likelihood ratio, passed", figure),
)
_CALIBRATION = {
    "slope": "Slope (1 is right)",
    "intercept": "Intercept (0 is right)",
    "observed_expected": "Observed : expected",
}
