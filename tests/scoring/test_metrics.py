"""Every figure against scikit-learn, or against a second computation written out by hand."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_cli.errors import UsageError
from dr_cli.grades import Calibration, Threshold, expected_grade
from dr_cli.scoring import metrics

GRADES = list(range(5))


def graded(n, seed=0, noise=0.8):
    """True grades with many zeros, and probabilities that know something: [N], [N, 5]."""
    rng = np.random.default_rng(seed)
    grade = rng.choice(5, n, p=[0.5, 0.1, 0.2, 0.1, 0.1])
    seen = grade + noise * rng.normal(size=n)
    p = np.exp(-((np.arange(5) - seen[:, None]) ** 2))
    return grade, p / p.sum(axis=1, keepdims=True)


pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@pytest.mark.filterwarnings("ignore")  # scikit-learn warns of what we call undefined
@given(pairs)
def test_figures_of_counts_are_scikit_learns(rows):
    grade, predicted = np.array(rows).T
    counts = metrics.confusion_counts(grade, predicted)
    assert (counts == reference.confusion_matrix(grade, predicted, labels=GRADES)).all()
    expected = {
        "accuracy": reference.accuracy_score(grade, predicted),
        "balanced_accuracy": reference.balanced_accuracy_score(grade, predicted),
        "qwk": reference.cohen_kappa_score(grade, predicted, weights="quadratic", labels=GRADES),
        "macro_f1": reference.f1_score(grade, predicted, average="macro"),
        "mean_absolute_error": np.abs(grade - predicted).mean(),
    }
    for name, figure in metrics.FIGURES.items():
        assert figure(counts) == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name
    assert metrics.accuracy(grade, predicted) == pytest.approx(expected["accuracy"])
    assert metrics.quadratic_weighted_kappa(grade, predicted) == pytest.approx(
        expected["qwk"], abs=1e-12, nan_ok=True
    )
    precision, recall, f1, _ = reference.precision_recall_fscore_support(
        grade, predicted, labels=GRADES, zero_division=np.nan
    )
    assert metrics.recall_of(counts) == pytest.approx(recall, nan_ok=True)
    assert metrics.precision_of(counts) == pytest.approx(precision, nan_ok=True)
    assert metrics.f1_of(counts) == pytest.approx(f1, nan_ok=True)
    for k in GRADES:
        others = grade != k
        by_hand = (predicted[others] != k).mean() if others.any() else np.nan
        assert metrics.specificity_of(counts)[k] == pytest.approx(by_hand, nan_ok=True)


def test_a_stack_of_counts_gives_a_stack_of_figures():
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 9, (3, 2, 5, 5))
    for figure in metrics.FIGURES.values():
        assert figure(stack).shape == (3, 2)
        assert figure(stack)[2, 1] == figure(stack[2, 1])


def test_what_is_undefined_is_nan_and_what_is_chance_is_zero():
    nothing = np.zeros((5, 5))
    assert all(np.isnan(figure(nothing)) for figure in metrics.FIGURES.values())
    assert np.isnan(metrics.quadratic_weighted_kappa([2, 2], [2, 2]))  # no disagreement possible
    assert metrics.quadratic_weighted_kappa([0, 1, 4], [0, 0, 0]) == 0  # always the same grade
    assert metrics.quadratic_weighted_kappa([2, 2, 2], [0, 1, 4]) == 0  # one grade only


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=1),
)
def test_area_under_roc_is_scikit_learns_with_ties_and_weights(rows):
    truth, score, weight = (np.array(column) for column in zip(*rows, strict=True))
    area = metrics.RocArea(truth, score)(np.stack([weight, np.ones_like(weight)]))
    for got, w in zip(area, (weight, np.ones(len(rows))), strict=True):
        if w[truth].sum() == 0 or w[~truth].sum() == 0:
            assert np.isnan(got)
        else:
            assert got == pytest.approx(reference.roc_auc_score(truth, score, sample_weight=w))
    assert metrics.auc(truth, score) == pytest.approx(area[1], nan_ok=True)


def test_probabilities_are_judged_as_scikit_learn_does():
    grade, p = graded(300)
    assert metrics.negative_log_likelihood(grade, p) == pytest.approx(reference.log_loss(grade, p))
    assert metrics.brier_score(grade, p) == pytest.approx(reference.brier_score_loss(grade, p))
    yes, two = grade >= 2, np.stack([p[:, :2].sum(axis=1), p[:, 2:].sum(axis=1)], axis=1)
    assert metrics.brier_score(yes.astype(int), two) == pytest.approx(
        reference.brier_score_loss(yes, two[:, 1])
    )
    certain = np.eye(5)[[0, 1]]
    assert metrics.negative_log_likelihood([0, 2], certain) == pytest.approx(
        -np.log(metrics.LEAST) / 2
    )  # p = 0 for the true grade: large, not infinite


def test_calibration_error_against_one_written_out():
    grade, p = graded(400)
    p[:3] = [[1, 0, 0, 0, 0], [0.2] * 5, [0.4, 0.6, 0, 0, 0]]  # at the edges of intervals
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (p.max(axis=1) > low) & (p.max(axis=1) <= low + 1 / 15)
        if inside.any():
            right = (p.argmax(axis=1) == grade)[inside].mean()
            total += inside.mean() * abs(right - p.max(axis=1)[inside].mean())
    assert metrics.expected_calibration_error(grade, p) == pytest.approx(total)
    curve = metrics.reliability_curve(grade, p)
    assert sum(b["n"] for b in curve) == 400
    assert [b["confidence"] for b in curve if b["n"] == 0] == [None] * sum(
        b["n"] == 0 for b in curve
    )
    assert np.isnan(metrics.expected_calibration_error([], np.empty((0, 5))))


@pytest.mark.parametrize("made_with", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(made_with):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 5)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    grade = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)  # drawn from p itself
    found = metrics.fit_temperature(grade, logits * made_with)
    assert found == pytest.approx(made_with, rel=0.05)
    tries = made_with * np.geomspace(0.8, 1.25, 201)  # the likeliest of a fine grid agrees
    losses = [
        metrics.negative_log_likelihood(grade, metrics.retemper(p, made_with / t)) for t in tries
    ]
    assert found == pytest.approx(tries[np.argmin(losses)], rel=0.003)


def test_temperature_keeps_to_its_range():
    never_wrong = np.eye(5) * 3
    assert metrics.fit_temperature(np.arange(5), never_wrong) == pytest.approx(0.25, rel=1e-3)
    always_wrong = np.roll(never_wrong, 1, axis=1)
    assert metrics.fit_temperature(np.arange(5), always_wrong) == pytest.approx(10, rel=1e-3)
    assert metrics.fit_temperature([], np.empty((0, 5))) == 1.0


def test_retemper_goes_back_to_before_the_temperature():
    _, p = graded(50)
    assert metrics.retemper(metrics.retemper(p, 1 / 1.7), 1.7) == pytest.approx(p)
    assert metrics.retemper(np.array([[1.0, 0, 0, 0, 0]]), 2.0) == pytest.approx(np.eye(5)[:1])


# --- thresholds


@pytest.mark.parametrize("rule", ["youden", "sensitivity=0.90", "specificity=0.95"])
@given(seed=st.integers(0, 10_000), n=st.integers(2, 60))
@settings(max_examples=40)
def test_operating_point_is_the_best_of_all_cuts(rule, seed, n):
    rng = np.random.default_rng(seed)
    truth, score = rng.random(n) < 0.4, rng.integers(0, 12, n) / 11
    if truth.all() or not truth.any():
        return
    got = metrics.choose_threshold(truth, score, rule)
    cuts = [*np.unique(score), 1.1]
    rates = [((score >= c)[truth].mean(), (score < c)[~truth].mean()) for c in cuts]
    sensitivity, specificity = got.sensitivity, got.specificity
    called = score >= got.value
    assert (sensitivity, specificity) == pytest.approx(
        (called[truth].mean(), (~called)[~truth].mean())
    )
    if rule == "youden":
        best = max(a + b for a, b in rates)
        assert sensitivity + specificity == pytest.approx(best)
        assert sensitivity == pytest.approx(max(a for a, b in rates if a + b > best - 1e-9))
    elif rule == "sensitivity=0.90":
        assert specificity == pytest.approx(max(b for a, b in rates if a >= 0.9))
    else:
        assert sensitivity == pytest.approx(max(a for a, b in rates if b >= 0.95))


def test_operating_point_of_grades_names_both_questions():
    grade, p = graded(500)
    point = metrics.operating_point(grade, p, "sensitivity=0.90")
    for first, found in ((2, point.referable), (3, point.sight_threatening)):
        score = p[:, first:].sum(axis=1)
        assert found.rule == "sensitivity=0.90"
        assert (score >= found.value)[grade >= first].mean() == found.sensitivity >= 0.9
        rounded = p.round(6)[:, first:].sum(axis=1)  # as a prediction file has them
        assert ((rounded >= found.value) == (score >= found.value)).all()


def test_operating_point_with_one_class_chooses_nothing():
    point = metrics.choose_threshold([False, False], [0.1, 0.9])
    assert point == Threshold(0.5, metrics.ONE_CLASS, None, 0.5)
    assert metrics.choose_threshold([], []).sensitivity is None


@pytest.mark.parametrize(
    "rule", ["best", "youden=1", "sensitivity", "specificity=0", "sensitivity=x", "specificity=1.5"]
)
def test_unknown_rules_are_refused(rule):
    with pytest.raises(UsageError, match=r"youden, sensitivity=0\.90 or specificity=0\.95"):
        metrics.parse_rule(rule)


def shrunk(grade):
    """Probabilities of a network that dares too little: expected grades are 0.55 of the true."""
    rng = np.random.default_rng(5)
    middle = np.clip(0.2 + 0.55 * grade + 0.3 * rng.normal(size=len(grade)), 0, 4)
    low = np.minimum(np.floor(middle).astype(int), 3)
    p = np.zeros((len(grade), 5))
    p[np.arange(len(p)), low], p[np.arange(len(p)), low + 1] = 1 - (middle - low), middle - low
    return p


def test_thresholds_raise_kappa_on_images_they_never_saw():
    grade = np.random.default_rng(0).choice(5, 4000, p=[0.5, 0.1, 0.2, 0.1, 0.1])
    p = shrunk(grade)
    cuts = metrics.fit_thresholds(grade[:200], p[:200])
    assert cuts == sorted(cuts) == metrics.fit_thresholds(grade[:200], p[:200])
    unseen = slice(200, None)
    plain, fitted = (
        metrics.quadratic_weighted_kappa(grade[unseen], Calibration(tuple(c)).decide(p[unseen]))
        for c in (metrics.START_CUTS, cuts)
    )
    assert fitted > plain + 0.05


def test_thresholds_stay_where_nothing_is_to_be_gained():
    assert metrics.fit_thresholds(GRADES, np.eye(5)) == list(metrics.START_CUTS)
    assert metrics.fit_thresholds([], np.empty((0, 5))) == list(metrics.START_CUTS)
    assert metrics.fit_thresholds([2, 2], np.full((2, 5), 0.2)) == list(metrics.START_CUTS)


@pytest.mark.filterwarnings("ignore::UserWarning")  # scikit-learn, of an undefined kappa
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), k=st.integers(0, 3))
@settings(max_examples=60)
def test_a_step_finds_the_best_place_of_one_cut(seed, n, k):
    rng = np.random.default_rng(seed)
    value = np.sort(rng.integers(0, 25, n) / 6)
    true, cuts = rng.integers(0, 5, n), np.sort(rng.random(4) * 4)
    low, high = cuts[k - 1] if k else -np.inf, cuts[k + 1] if k < 3 else np.inf

    def kappa(at):
        tried = cuts.copy()
        tried[k] = at
        found = reference.cohen_kappa_score(
            true, np.digitize(value, tried), weights="quadratic", labels=GRADES
        )
        return -np.inf if np.isnan(found) else found

    steps = np.unique(value[(value >= low) & (value < high)])
    best = max([kappa(cuts[k]), *(kappa(at) for at in (steps[1:] + steps[:-1]) / 2)])
    got = metrics._best_cut(true, value, cuts, k)
    assert low <= got <= high
    assert kappa(got) == pytest.approx(best, abs=1e-9)


def test_expected_grade_is_what_thresholds_cut():
    p = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0.2, 0.8]])
    assert expected_grade(p) == pytest.approx([0.5, 3.8])
    assert Calibration(metrics.START_CUTS).decide(p).tolist() == [1, 4]
