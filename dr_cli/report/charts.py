"""The dictionary of `reading.collect` -> the lines that the page's charts and a paper's show."""

from collections.abc import Sequence
from dataclasses import replace

from dr_cli import grades
from dr_cli.report import answers, svg
from dr_cli.report.figures import BASELINES, find_figure, find_value, show
from dr_cli.report.svg import Chart, Line, Ridges, Rule
from dr_cli.scoring.record import Record
from dr_cli.words import number, percent

DIAGONAL = Line("chance", [(0, 0), (1, 1)], svg.NEUTRAL, True, marked=False)
LEAST_BENEFIT = -0.05  # below it a decision curve falls out of its frame
_NAMES = {"train": "training", "val": "validation", "test": "testing"}  # of a split's line


def trace_metric(runs: Sequence[Record], first: str, metric: str) -> list[Line]:
    """A metric against epoch: for every run the split `first`, dashed, and testing, which has a
    ring at the kept epoch.

    Validation stands for testing where there was none.
    """
    lines = []
    for i, run in enumerate(runs):
        last = "test" if _pick_points(run, f"test_{metric}") else "val"
        for split in dict.fromkeys((first, last)):
            if points := _pick_points(run, f"{split}_{metric}"):
                kept = run["best_epoch"] if split == last else None
                name = f"{run['name']}, {_NAMES[split]}"
                lines.append(Line(name, points, i, split != last, kept=kept))
    return lines


def rule_baselines(runs: Sequence[Record], metric: str) -> list[Rule]:
    """What needs no network, where it is the same for every run."""
    rules = []
    for key, what in BASELINES.items():
        levels = {(run["record"]["baselines"].get(key) or {}).get(metric) for run in runs}
        if len(levels) == 1 and (level := levels.pop()) is not None:
            rules.append(Rule(what, level))
    return rules


def trace_rocs(runs: Sequence[Record]) -> list[Line]:
    """Chance, and the ROC of referable retinopathy of every run that has one; [] without any."""
    lines = [
        Line(f"{run['name']}, AUC {show(run['record'], 'referable.auc')}", run["curves"]["roc"], i)
        for i, run in enumerate(runs)
        if run["curves"]["roc"]
    ]
    return lines and [DIAGONAL, *lines]


def compare_runs(runs: Sequence[Record], best: Record) -> list[Chart]:
    """The course's figure (accuracy against epoch in training and testing, every run), QWK, and
    for several runs what their time of training bought, a point a run. Those with a point."""
    times = [
        Line(f"{run['name']}, {run['seconds']:,.0f} s, QWK {number(qwk)}", [(minutes, qwk)], i)
        for i, run in enumerate(runs)
        if (qwk := find_value(run["record"], "qwk")) is not None
        and (minutes := (run["seconds"] or 0) / 60)
    ]
    found = [
        Chart(
            "Accuracy against epoch", trace_metric(runs, "train", "accuracy"), "accuracy",
            percent=True, rules=rule_baselines(runs, "accuracy"), answers=answers.of_accuracy(best),
        ),
        Chart(
            "QWK against epoch", trace_metric(runs, "val", "qwk"), "QWK",
            rules=rule_baselines(runs, "qwk"), answers=answers.of_qwk(best),
        ),
    ]  # fmt: skip
    if len(times) > 1:
        told = answers.of_times(runs)
        title = "QWK against time of training"
        found.append(Chart(title, times, "QWK", "minutes", wide=True, answers=told))
    return [chart for chart in found if chart.shown]


def describe_run(run: Record, style: int) -> list[Chart | Ridges]:
    """The charts of one run that have a point: its epochs' and its predictions'."""
    kept = run["best_epoch"]
    loss = [
        Line(_NAMES[split], points, style, split == "train", kept=kept if split == "val" else None)
        for split in ("train", "val")
        if (points := _pick_points(run, f"{split}_loss"))
    ]
    rate = [Line("learning rate", _pick_points(run, "lr"), style)]
    names = [f"{grade} {name}" for grade, name in enumerate(grades.NAMES)]
    expected = list(zip(names, run["curves"]["expected"], strict=True))
    found: list[Chart | Ridges] = [
        Chart(
            "Referable retinopathy: ROC", _trace_operating_point(run, style),
            "sensitivity", "1 − specificity", square=True, answers=answers.of_roc(run),
        ),
        Chart(
            "Reliability: is 80% sure right in 80%?", _trace_reliability(run, style),
            "share right", "probability of the likeliest grade", square=True,
            answers=answers.of_reliability(run),
        ),
        Chart(
            "Referable: probability against what is so", _trace_honesty(run, style),
            "share that is referable", "probability of referable", square=True,
            answers=answers.of_honesty(run),
        ),
        Chart(
            "Decision curve: what acting on it gains", _trace_benefit(run, style),
            "net benefit, referable", "threshold probability", rules=(Rule("refer nobody", 0.0),),
            answers=answers.of_benefit(run),
        ),
        Ridges(
            "Expected grade by true grade", expected, (0, grades.NUM_GRADES - 1),
            "expected grade", style, answers=answers.of_expected(run),
        ),
        Chart("Loss against epoch", loss, "loss", answers=answers.of_loss(run)),
        Chart("Learning rate against epoch", rate, "learning rate", answers=answers.of_rate(run)),
        Chart(
            "Where the time went", _trace_times(run, style), "seconds an epoch", from_zero=True,
            answers=answers.of_seconds(run),
        ),
    ]  # fmt: skip
    return [chart for chart in found if chart.shown]


def _trace_times(run: Record, style: int) -> list[Line]:
    """Seconds of each epoch; their sums in the legend."""
    lines = []
    whole = sum(training + predicting for _, training, predicting in run["phases"]) or 1
    for k, what in ((1, "training"), (2, "predicting validation and test")):
        total = sum(row[k] for row in run["phases"])
        points = [(row[0], row[k]) for row in run["phases"]]
        name = f"{what}: {total:,.0f} s ({percent(total / whole, 0)})"
        lines.append(Line(name, points, style, k == 1))
    return lines


def _trace_operating_point(run: Record, style: int) -> list[Line]:
    """The ROC with the point on it that the run calls referable from."""
    record, roc = run["record"], run["curves"]["roc"]
    if not roc:
        return []
    lines = [DIAGONAL, Line(f"AUC {show(record, 'referable.auc')}", roc, style, marked=False)]
    sensitivity, specificity, threshold = (
        find_value(record, f"referable.{part}")
        for part in ("sensitivity", "specificity", "threshold")
    )
    if None not in (sensitivity, specificity):
        name = (
            f"operating point {number(threshold)}: "
            f"sensitivity {percent(sensitivity)}, specificity {percent(specificity)}"
        )
        lines.append(Line(name, [(1 - specificity, sensitivity)], style))
    return lines


def _trace_reliability(run: Record, style: int) -> list[Line]:
    bins = run["curves"]["reliability"]
    return [replace(DIAGONAL, name="perfect")] + [
        Line(f"{when} temperature", [(sure, right) for sure, right, _ in bins[when]], style, dashed)
        for when, dashed in (("before", True), ("after", False))
        if bins[when]
    ]


def _trace_honesty(run: Record, style: int) -> list[Line]:
    """Predicted against observed share of referable images; [] in older records."""
    curve = find_figure(run["record"], "referable.calibration.curve") or []
    points = [(part["predicted"], part["observed"]) for part in curve if part["n"]]
    lines = [replace(DIAGONAL, name="perfect"), Line(run["name"], points, style)]
    return lines if points else []


def _trace_benefit(run: Record, style: int) -> list[Line]:
    """Net benefit of the network and of referring everybody, as far as it is worth a look."""
    curve = find_figure(run["record"], "referable.decision_curve")
    if not curve:
        return []
    lines = []
    for key, name, of in (
        ("refer_all", "refer everybody", svg.NEUTRAL), ("network", run["name"], style)
    ):  # fmt: skip
        pairs = zip(curve["threshold"], curve[key], strict=True)
        points = [(at, gain) for at, gain in pairs if gain > LEAST_BENEFIT]
        lines.append(Line(name, points, of, of == svg.NEUTRAL, marked=False))
    return lines


def _pick_points(run: Record, column: str) -> list[tuple[float, float]]:
    return [
        (row["epoch"], row[column])
        for row in run["history"]
        if row.get("epoch") is not None and row.get(column) is not None
    ]
