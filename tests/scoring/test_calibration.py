"""What is chosen on validation: temperature, thresholds and cuts, each against a search."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_cli.errors import UsageError
from dr_cli.grades import DECISIONS, Calibration, Threshold, expected_grade
from dr_cli.scoring import calibration, metrics
from tests.builders.predictions import graded

GRADES = list(range(5))


@pytest.mark.parametrize("decision", DECISIONS)
def test_a_calibration_is_chosen_step_by_step(decision):
    grade, p = graded(80)
    logits = (2 * np.log(p)).astype(np.float32)
    chosen = calibration.calibrate(grade, logits, decision)
    assert chosen.temperature == calibration.support_temperature(grade, logits)
    tempered = chosen.probabilities(logits)
    cuts = None
    if decision != "argmax":
        cuts = calibration.fit_thresholds(grade, tempered, decision)
    assert (chosen.decision, chosen.cuts) == (decision, cuts)
    assert chosen.operating_point == calibration.choose_operating_point(grade, tempered)
    assert calibration.calibrate([], logits[:0], decision) == Calibration()


@pytest.mark.parametrize("made_with", [0.5, 1.0, 3.0])
def test_temperature_is_found_again(made_with):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(20_000, 5)) * 2
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    grade = (p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1)  # drawn from p itself
    found = calibration.fit_temperature(grade, logits * made_with)
    assert found == pytest.approx(made_with, rel=0.05)
    tries = made_with * np.geomspace(0.8, 1.25, 201)  # the likeliest of a fine grid agrees
    losses = [
        metrics.negative_log_likelihood(grade, calibration.retemper(p, made_with / t))
        for t in tries
    ]
    assert found == pytest.approx(tries[np.argmin(losses)], rel=0.003)


def test_temperature_keeps_to_its_range():
    never_wrong = np.eye(5) * 3
    assert calibration.fit_temperature(np.arange(5), never_wrong) == pytest.approx(0.25, rel=1e-3)
    always_wrong = np.roll(never_wrong, 1, axis=1)
    assert calibration.fit_temperature(np.arange(5), always_wrong) == pytest.approx(10, rel=1e-3)
    assert calibration.fit_temperature([], np.empty((0, 5))) == 1.0


def drawn(n, true_temperature, seed):
    """Logits whose probabilities are honest after this temperature, and grades drawn from those."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 5))
    p = calibration.softmax(logits)
    return logits * true_temperature, (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, 4)


def test_a_temperature_is_kept_only_where_images_left_out_are_better_off():
    needless = [calibration.support_temperature(*drawn(60, 1.0, s)[::-1]) for s in range(12)]
    assert needless.count(1.0) >= 9
    needed = [calibration.support_temperature(*drawn(60, 2.5, s)[::-1]) for s in range(12)]
    assert min(needed) > 1.2
    logits, grade = drawn(60, 2.5, 0)
    assert needed[0] == calibration.fit_temperature(grade, logits)
    assert calibration.support_temperature(grade[:1], logits[:1]) == 1.0


def test_patients_are_left_out_whole():
    """Copies of one patient's photographs never judge what was fitted on the others."""
    logits, grade = drawn(1, 1.0, 3)
    logits, grade = np.tile(logits, (30, 1)), np.tile(grade, 30)
    assert calibration.support_temperature(grade, logits) != 1
    assert calibration.support_temperature(grade, logits, np.zeros(30, int)) == 1


def test_what_is_odd_of_a_temperature_is_told():
    assert "support no other" in calibration.tell_temperature(1.0)
    assert "end of the range" in calibration.tell_temperature(0.25)
    assert "end of the range" in calibration.tell_temperature(9.9999)
    assert calibration.tell_temperature(1.3) is calibration.tell_temperature(None) is None


def test_retemper_goes_back_to_before_the_temperature():
    _, p = graded(50)
    assert calibration.retemper(calibration.retemper(p, 1 / 1.7), 1.7) == pytest.approx(p)
    assert calibration.retemper(np.array([[1.0, 0, 0, 0, 0]]), 2.0) == pytest.approx(np.eye(5)[:1])


# --- thresholds


@pytest.mark.parametrize("rule", ["youden", "sensitivity=0.90", "specificity=0.95"])
@given(seed=st.integers(0, 10_000), n=st.integers(2, 60))
@settings(max_examples=40)
def test_operating_point_is_the_best_of_all_cuts(rule, seed, n):
    rng = np.random.default_rng(seed)
    truth, score = rng.random(n) < 0.4, rng.integers(0, 12, n) / 11
    if truth.all() or not truth.any():
        return
    got = calibration.choose_threshold(truth, score, rule)
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
    point = calibration.choose_operating_point(grade, p, "sensitivity=0.90")
    for first, found in ((2, point.referable), (3, point.sight_threatening)):
        score = p[:, first:].sum(axis=1)
        assert found.rule == "sensitivity=0.90"
        assert (score >= found.value)[grade >= first].mean() == found.sensitivity >= 0.9
        rounded = p.round(6)[:, first:].sum(axis=1)  # as a prediction file has them
        assert ((rounded >= found.value) == (score >= found.value)).all()


def test_operating_point_with_one_class_chooses_nothing():
    point = calibration.choose_threshold([False, False], [0.1, 0.9])
    assert point == Threshold(0.5, calibration.ONE_CLASS, None, 0.5)
    assert calibration.choose_threshold([], []).sensitivity is None


@pytest.mark.parametrize(
    "rule", ["best", "youden=1", "sensitivity", "specificity=0", "sensitivity=x", "specificity=1.5"]
)
def test_unknown_rules_are_refused(rule):
    with pytest.raises(UsageError, match=r"youden, sensitivity=0\.90 or specificity=0\.95"):
        calibration.parse_rule(rule)


def shrunk(grade, noise=0.3):
    """Probabilities of a network that dares too little: expected grades are 0.55 of the true."""
    rng = np.random.default_rng(5)
    middle = np.clip(0.2 + 0.55 * grade + noise * rng.normal(size=len(grade)), 0, 4)
    low = np.minimum(np.floor(middle).astype(int), 3)
    p = np.zeros((len(grade), 5))
    p[np.arange(len(p)), low], p[np.arange(len(p)), low + 1] = 1 - (middle - low), middle - low
    return p


def test_thresholds_raise_kappa_on_images_they_never_saw():
    grade = np.random.default_rng(0).choice(5, 4000, p=[0.5, 0.1, 0.2, 0.1, 0.1])
    p = shrunk(grade)
    cuts = calibration.fit_thresholds(grade[:200], p[:200])
    assert cuts == tuple(sorted(cuts)) == calibration.fit_thresholds(grade[:200], p[:200])
    unseen = slice(200, None)
    plain, fitted = (
        metrics.quadratic_weighted_kappa(grade[unseen], Calibration(c).decide(p[unseen]))
        for c in (calibration.START_CUTS, cuts)
    )
    assert fitted > plain + 0.05


def test_cuts_for_accuracy_are_right_more_often_and_those_for_kappa_agree_more():
    grade = np.random.default_rng(0).choice(5, 8000, p=[0.5, 0.1, 0.2, 0.1, 0.1])
    p, seen, unseen = shrunk(grade, noise=0.8), slice(800), slice(800, None)
    counts = {
        objective: metrics.confusion_counts(grade[unseen], Calibration(cuts).decide(p[unseen]))
        for objective in calibration.OBJECTIVES
        for cuts in [calibration.fit_thresholds(grade[seen], p[seen], objective)]
    }
    for objective, merit in calibration.OBJECTIVES.items():
        (other,) = set(counts) - {objective}
        assert merit(counts[objective]) > merit(counts[other]) + 0.01


def test_thresholds_stay_where_nothing_is_to_be_gained():
    assert calibration.fit_thresholds(GRADES, np.eye(5)) == calibration.START_CUTS
    assert calibration.fit_thresholds([], np.empty((0, 5))) == calibration.START_CUTS
    assert calibration.fit_thresholds([2, 2], np.full((2, 5), 0.2)) == calibration.START_CUTS


@pytest.mark.filterwarnings("ignore::UserWarning")  # scikit-learn, of an undefined kappa
@given(seed=st.integers(0, 10_000), n=st.integers(1, 40), k=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
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
    got = calibration._best_cut(true, value, cuts, k, metrics.quadratic_weighted_kappa_of)
    assert low <= got <= high
    assert kappa(got) == pytest.approx(best, abs=1e-9)


def test_expected_grade_is_what_thresholds_cut():
    p = np.array([[0.5, 0.5, 0, 0, 0], [0, 0, 0, 0.2, 0.8]])
    assert expected_grade(p) == pytest.approx([0.5, 3.8])
    assert Calibration(calibration.START_CUTS).decide(p).tolist() == [1, 4]
