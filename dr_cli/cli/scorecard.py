"""What `dr eval` says on a terminal of 80 columns: figures by subject, grades, comparisons."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from dr_cli import words
from dr_cli.cli.tables import Cell, Record, table

if TYPE_CHECKING:
    from rich.table import Table

Figure = tuple[str, float | None, list[float] | None]  # name, value, 95% interval

SUBJECTS = {  # of the figures' names, by their first part
    "": "Grades",
    "referable": "Referable: grade 2 or more",
    "sight_threatening": "Sight-threatening: grade 3 or more",
    "calibration": "Honesty of the probabilities",
    "ungradable": "Images that the quality gate refuses",
}
NAMES = {  # of a figure, without its first part; any other is said as it is called
    "qwk": "QWK", "macro_f1": "macro F1", "mean_absolute_error": "mean absolute error, in grades",
    "auc": "AUC", "ece": "ECE", "brier": "Brier", "nll": "NLL",
    "before.ece": "ECE before temperature", "before.brier": "Brier before temperature",
    "before.nll": "NLL before temperature",
    "without.accuracy": "accuracy without them", "without.qwk": "QWK without them",
}  # fmt: skip
DECISIONS = {"qwk": "QWK", "accuracy": "accuracy", "argmax": "the likeliest grade"}
CALIBRATION = {  # heading -> figure of a probability
    "calibration slope": "slope",
    "calib. intercept": "intercept",
    "observed/expected": "observed_expected",
}


def show(record: Record, figures: Iterable[Figure]) -> list["Table | str"]:
    """All of it. figures: those of the record itself, as `flatten` gives them."""
    parts: list[Table | str] = [figures_table(record, figures), screening_table(record)]
    if record["per_patient"]:
        parts.append(patients_table(record))
    if record["confusion"]:
        parts += [grades_table(record["per_grade"]), confusion_table(record)]
    for kind in ("folds", "seeds"):
        if spread := record.get(kind):
            parts.append(spread_table(kind, spread))
    if record["subgroups"]:
        parts.append(groups_table(record["subgroups"]))
    return [*parts, *map(pair_table, record.get("against", [])), *judge(record)]


def figures_table(record: Record, figures: Iterable[Figure]) -> "Table":
    """The figures of a record by subject, and what scores without looking at an image."""
    graded = bool(record["per_grade"])
    rows: list[list[Cell]] = []
    for subject, some in groupby(figures, key=lambda figure: figure[0].rpartition(".")[0]):
        first = subject.partition(".")[0]
        told = [_row(*figure) for figure in some if graded or figure[1] is not None]
        if not told or first in ("baseline", "folds", "seeds"):  # which have a place of their own
            continue
        if subject == first:
            rows += _head(SUBJECTS.get(first, first.replace("_", " ").capitalize()))
        rows += _tell_threshold(record.get(first)) + told
    if graded:
        if record.get("decisions"):
            rows += [*_head("The same probabilities, decided for"), *_tell_decisions(record)]
        rows += [*_head("Beside it, without a look at an image"), *_tell_baselines(record)]
    patients = f", {words.count(record['patients'], 'patient')}" if record["patients"] else ""
    images = words.count(record["n"], "image")
    title = f"{record['run'] or record['data']}, {record['split']}: {images}{patients}"
    return table(title, ("figure", ">value", "95% interval"), rows)


def _head(subject: str) -> list[list[Cell]]:
    return [["", "", ""], [(subject, "bold"), "", ""]]


def _row(name: str, value: float | None, interval: list[float] | None) -> list[Cell]:
    first, _, rest = name.partition(".")
    rest = rest or first
    return [f"  {_name(rest)}", words.number(value), " to ".join(map(words.number, interval or ()))]


def _name(figure: str) -> str:
    return NAMES.get(figure, figure.replace(".", " ").replace("_", " "))


def _tell_threshold(part: Any) -> list[list[Cell]]:
    """The threshold that a target's figures hold at, and where it comes from."""
    if not isinstance(part, Mapping) or "threshold" not in part:
        return []
    from dr_cli.scoring.record import FROM_GRADE, NOT_CHOSEN

    short = {FROM_GRADE: "none: the predicted grade", NOT_CHOSEN: "not chosen on validation"}
    source = part["threshold_from"]  # where it is not in short, 80 columns hold it
    parts = [short[source]] if source in short else filter(None, [part["rule"], source])
    told = ", ".join(dict.fromkeys(parts))
    return [["  threshold", words.number(part["threshold"]), told]]


def _tell_decisions(record: Record) -> Iterator[list[Cell]]:
    for name, told in DECISIONS.items():
        used = "; used here" if name == record["decision"] else ""
        yield [f"  {told}", *_tell_pair(record["decisions"][name], used)]


def _tell_baselines(record: Record) -> Iterator[list[Cell]]:
    for name, told in words.BASELINES.items():
        pair = record["baselines"].get(name)
        yield [f"  {told}", *(_tell_pair(pair) if pair else ("not known", ""))]


def _tell_pair(pair: Record, more: str = "") -> list[Cell]:
    return [f"QWK {words.number(pair['qwk'])}", f"accuracy {words.number(pair['accuracy'])}{more}"]


def judge(record: Record) -> list[str]:
    """A sentence on QWK beside the baselines that are known; none where there is no QWK."""
    qwk, told = record["qwk"], []
    for name, words_for in words.BASELINES.items():
        pair = record["baselines"].get(name)
        if pair is None or pair["qwk"] is None or qwk["value"] is None:
            continue
        low, high = qwk["ci95"] or [qwk["value"]] * 2
        if paired := ((pair.get("difference") or {}).get("qwk") or {}).get("ci95"):
            low, high = (pair["qwk"] + bound for bound in paired)  # the same patients in both
        clear = "above" if low > pair["qwk"] else "below" if high < pair["qwk"] else None
        told.append(f"{clear or 'not told apart from'} {words_for} ({words.number(pair['qwk'])})")
    return [f"QWK {words.figure(qwk)} is {' and '.join(told)}."] if told else []


def screening_table(record: Record) -> "Table":
    """What alarms are worth to those who get them, and whether their probabilities can be
    believed, by target."""
    told = {name: _tell_screening(record[name]) for name in ("referable", "sight_threatening")}
    told = {name.replace("_", "-"): cells for name, cells in told.items() if cells}
    rows = [[heading, *(one[heading] for one in told.values())] for heading in told["referable"]]
    return table("Screening, image by image", ("", *(f">{name}" for name in told)), rows)


def _tell_screening(target: Record) -> dict[str, str]:
    """Heading -> cell; nothing of a target that the table says nothing of."""
    counts, judged = target["counts"], target["calibration"] or {}
    if counts is None:
        return {}
    told = {
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
    told = {_name(name): found[name] for name in ("accuracy", "qwk")}
    for name in ("referable", "sight_threatening"):
        where = name.replace("_", "-")
        told |= {f"{where}, {_name(key)}": figure for key, figure in found[name].items()}
    rows = [(name, words.figure(f)) for name, f in told.items() if f["value"] is not None]
    title = f"Each patient's worst eye: {words.count(found['n'], 'patient')}"
    return table(title, ("figure", ">value"), rows)


def grades_table(grades: Iterable[Record]) -> "Table":
    """Each grade against all others."""
    figures = ("precision", "recall", "specificity", "f1", "auc")
    rows = [
        [f"{one['grade']} {one['name']}", words.number(one["support"])]
        + [words.number(one[figure], 2) for figure in figures]
        for one in grades
    ]
    columns = (">images", ">precision", ">recall", ">specificity", ">F1", ">AUC")
    return table("", ("grade", *columns), rows)


def confusion_table(record: Record) -> "Table":
    """Counts and percentages of their row, shaded by these; what was graded right is bold."""
    rows: list[list[Cell]] = []
    for k, (grade, counts) in enumerate(zip(record["per_grade"], record["confusion"], strict=True)):
        total = sum(counts)
        cells: list[Cell] = []
        for j, n in enumerate(counts):
            share = n / total if total else 0
            told = f"{n:,} {words.percent(share, 0):>4}" if total else f"{n}"
            cells.append((told, _shade(share) + " bold" * (j == k)))
        rows.append([f"{grade['grade']} {grade['name']}", *cells])
    columns = [f">{grade['grade']}" for grade in record["per_grade"]]
    return table("Confusion: rows true, columns predicted", ["true", *columns], rows)


def _shade(share: float) -> str:
    """A blue that deepens with the share of the row, with letters that stand out from it."""
    if share < 0.005:
        return "dim"
    from dr_cli.markup import mix  # on use: it brings numpy

    ground, text = mix((255, 255, 255), (80, 80, 208), share)
    return f"{text} on #{bytes(ground).hex()}"


def spread_table(kind: str, spread: Record) -> "Table":
    """The mean and deviation of each figure over folds or seeds."""
    from dr_cli.scoring.metrics import FIGURES

    rows = (
        (FIGURES[name].heading, words.number(mean), words.number(spread["sd"][name]))
        for name, mean in spread["mean"].items()
    )
    title = f"Each of {len(spread['each'])} {kind} by itself"
    return table(title, ("figure", ">mean", ">standard deviation"), rows)


def groups_table(groups: Record) -> "Table":
    """The figures of each group of `--by`, their intervals below them: beside is no room."""
    rows = []
    for group in groups["groups"]:
        value = "not known" if group["value"] is None else str(group["value"])
        figures = (group["accuracy"], group["qwk"], group["referable"]["auc"])
        shown = [words.figure(figure).replace(" (", "\n(") for figure in figures]
        rows.append([value, words.number(group["n"]), *shown])
    columns = (groups["column"], ">images", "accuracy", "QWK", "referable AUC")
    return table(f"by {groups['column']}", columns, rows)


PAIRED = {  # what two runs are told apart by
    "qwk": "QWK", "referable_auc": "referable AUC",
    "mcnemar_referable": "referable, right alone", "mcnemar_grade": "grade, right alone",
}  # fmt: skip


def pair_table(pair: Record) -> "Table":
    """A comparison of two runs; p is corrected for as many pairs as there are."""
    say = {name: words.mcnemar if "mcnemar" in name else words.difference for name in PAIRED}
    rows = [(told, say[name](pair[name])) for name, told in PAIRED.items() if pair.get(name)]
    columns = ("test", "difference, or images right alone; p, corrected for all pairs")
    return table(f"{pair['a']} − {pair['b']}", columns, rows)
