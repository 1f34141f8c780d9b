"""What a student and a clinician ask of a figure: what is it, what is good, what is it here.

Each function gives those three answers; "here" is computed from the run that the figure is of.
"""

from collections.abc import Sequence

from dr_cli.grades import NUM_GRADES, REFERABLE_FROM
from dr_cli.report.figures import find_figure, find_value, show
from dr_cli.scoring.record import Record
from dr_cli.words import figure, number, percent

QUESTIONS = ("What is it?", "What is good?", "What is it here?")

EVEN = 0.005  # between confidence and the share right: nothing to speak of

Answers = tuple[str, str, str]


def of_accuracy(run: Record) -> Answers:
    """Of accuracy against epoch; `run` is the best."""
    row = _kept_row(run)
    trained, tested = row.get("train_accuracy"), row.get("test_accuracy", row.get("val_accuracy"))
    here = f"{run['name']} reaches {show(run['record'], 'accuracy')}"
    if trained is not None and tested is not None:
        here += (
            f"; at the kept epoch {run['best_epoch']} it has {percent(trained)} in training and "
            f"{percent(tested)} on images that it did not learn from"
        )
    return (
        "The share of photographs that are given their true grade, after each pass through the "
        "training images.",
        "Testing well above the level of always saying the commonest grade, and close to training. "
        "Training that climbs away from testing learns its images by heart. Where one grade is "
        "common, accuracy is easily high: look at QWK as well.",
        f"{here}.",
    )


def of_qwk(run: Record) -> Answers:
    """Of QWK against epoch; `run` is the best."""
    qwk = find_value(run["record"], "qwk")
    kept = "" if run["best_epoch"] is None else f", with the weights of epoch {run['best_epoch']}"
    beside = [
        f"{number(base['qwk'])} of {what}"
        for key, what in (("majority", "the commonest grade"), ("fellow_eye", "the other eye"))
        if (base := run["record"]["baselines"].get(key)) and base["qwk"] is not None
    ]
    against = f", beside {' and '.join(beside)}" if beside and qwk is not None else ""
    return (
        "Agreement with the true grades beyond chance, where a mistake by two grades weighs four "
        "times one by a single grade (quadratic weighted kappa).",
        "1 is full agreement, 0 is chance. A network that does not beat copying the grade of the "
        "patient's other eye has seen nothing that a look at the other eye would not tell.",
        f"{run['name']} reaches {show(run['record'], 'qwk')}{kept}{against}.",
    )


def of_times(runs: Sequence[Record]) -> Answers:
    """Of QWK against the time of training."""
    known = [run for run in runs if run["seconds"]]
    fast = min(known, key=lambda run: run["seconds"])
    return (
        "What each run's time of training has bought.",
        "High and to the left: more agreement in less time.",
        f"The quickest is {fast['name']} with {fast['seconds'] / 60:,.1f} minutes.",
    )


def of_loss(run: Record) -> Answers:
    """Of loss against epoch."""
    rows = [row for row in run["history"] if row.get("val_loss") is not None]
    low = min(rows, key=lambda row: row["val_loss"]) if rows else None
    here = "No validation loss was kept."
    if low:
        rises = rows[-1]["val_loss"] > low["val_loss"]
        after = "it rose afterwards" if rises else "it was still falling: more epochs may help"
        here = (
            f"Validation's is lowest in epoch {low['epoch']:.0f} of {len(run['history'])}; {after}."
        )
    return (
        "How far the probabilities are from the true grades: what training makes small.",
        "Both lines fall. Validation that rises while training falls is learning by heart. The two "
        "need not meet: training's is measured on images changed at random.",
        here,
    )


def of_rate(run: Record) -> Answers:
    """Of the learning rate against epoch."""
    rates = [row["lr"] for row in run["history"] if row.get("lr") is not None]
    here = f"From {rates[0]:.3g} to {rates[-1]:.3g}." if rates else "None was kept."
    return (
        "How far each step of training moves the weights.",
        "Small enough that the loss falls without jumps, large enough that it falls at all; it "
        "usually ends low.",
        here,
    )


def of_seconds(run: Record) -> Answers:
    """Of where the time went."""
    training = sum(row[1] for row in run["phases"])
    whole = sum(row[1] + row[2] for row in run["phases"])
    share = f"{percent(training / whole, 0)} of the time was training" if whole else "None was kept"
    return (
        "Seconds of each epoch: of learning, and of predicting validation and test.",
        "Most of it learning. A first epoch that takes longer has prepared the photographs.",
        f"{share}.",
    )


def of_roc(run: Record) -> Answers:
    """Of the ROC of referable retinopathy."""
    record = run["record"]
    found, passed = (find_value(record, f"referable.{k}") for k in ("sensitivity", "specificity"))
    here = f"The area is {show(record, 'referable.auc')}."
    if None not in (found, passed):
        here += (
            f" At the threshold it finds {100 * found:.0f} of 100 eyes with referable retinopathy, "
            f"misses {100 - round(100 * found)}, and refers {100 - round(100 * passed)} of 100 "
            "without it."
        )
    return (
        "Every threshold there could be: how many of the eyes that must be referred are found, "
        "against how many of the others are referred with them.",
        "A line that hugs the upper left corner, area 1; the diagonal is a coin, area 0.5. Which "
        "point on it is right depends on what a missed eye costs, and what a needless visit.",
        here,
    )


def of_reliability(run: Record) -> Answers:
    """Of the probability of the likeliest grade against the share that is right."""
    bins = run["curves"]["reliability"]["after"]
    total = sum(n for _, _, n in bins) or 1
    gap = sum((sure - right) * n for sure, right, n in bins) / total
    tends = "It is surer than right" if gap > 0 else "It is less sure than right"
    here = f"{tends}, by {percent(abs(gap))} on average"
    if abs(gap) < EVEN:
        here = "On average it is neither too sure nor too modest"
    return (
        "Whether a probability can be taken at its word: of the images of which the network is 80% "
        "sure, are 80% right?",
        "Points on the diagonal. Below it the network is too sure of itself, above it too modest.",
        f"{here}; the points lie "
        f"{percent(find_value(run['record'], 'calibration.ece'))} from the diagonal (ECE).",
    )


def of_honesty(run: Record) -> Answers:
    """Of the probability of referable retinopathy against the share that is so."""
    judged = find_figure(run["record"], "referable.calibration") or {}
    return (
        "Of the images to which the network gives this probability of referable retinopathy, how "
        "many are referable?",
        "Points on the diagonal, slope 1 and intercept 0. A slope below 1 says that the "
        "probabilities are too extreme, an intercept below 0 that they are too high.",
        f"Slope {figure(judged.get('slope'))}, intercept {figure(judged.get('intercept'))}; "
        f"{figure(judged.get('observed_expected'))} referable images for each one expected.",
    )


def of_benefit(run: Record) -> Answers:
    """Of the decision curve of referable retinopathy."""
    curve = find_figure(run["record"], "referable.decision_curve") or {}
    best = [
        at
        for at, gain, everybody in zip(
            *(curve.get(key, ()) for key in ("threshold", "network", "refer_all")), strict=True
        )
        if gain > max(0, everybody)
    ]
    here = "Nowhere better than referring everybody or nobody."
    if best:
        here = (
            f"Better than referring everybody and nobody at {len(best)} of "
            f"{len(curve['threshold'])} thresholds, from {best[0]:.2f} to {best[-1]:.2f}."
        )
    return (
        "True alarms for each image, less the needless ones, which weigh more the higher the "
        "probability from which one acts: at 0.10 nine needless visits weigh as much as one eye "
        "found.",
        "The network's line above both others at the thresholds that a clinic would act from.",
        here,
    )


def of_expected(run: Record) -> Answers:
    """Of the histograms of the expected grade."""
    return (
        "The mean of the grades, each weighed by its probability; a row for each true grade.",
        "Five hills in order, each over its own grade and apart from its neighbours. Hills that "
        "overlap are grades that the network does not tell apart.",
        f"The predicted grade is off by {show(run['record'], 'mean_absolute_error')} grades on "
        "average.",
    )


def of_confusion(record: Record) -> Answers:
    """Of the confusion matrix."""
    counts = record["confusion"]
    referable = sum(map(sum, counts[REFERABLE_FROM:]))
    missed = sum(sum(row[:REFERABLE_FROM]) for row in counts[REFERABLE_FROM:])
    far = sum(counts[g][p] for g in range(NUM_GRADES) for p in range(NUM_GRADES) if abs(g - p) > 1)
    return (
        "Each photograph once: its row is the true grade, its column the predicted one.",
        "All of them on the diagonal. A mistake by one grade stands beside it; one in the lower "
        "left corner is sight-threatening retinopathy called healthy.",
        f"Of {referable:,} images of grade 2 or more, {missed:,} are called 0 or 1; {far:,} of "
        f"{record['n']:,} images are off by more than one grade.",
    )


def _kept_row(run: Record) -> Record:
    """The row of the epoch whose weights were kept; empty where that is not known."""
    return next((r for r in run["history"] if r.get("epoch") == run["best_epoch"]), {})
