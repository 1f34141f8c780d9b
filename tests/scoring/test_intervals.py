"""Intervals over patients: against scikit-learn on copied images, and against known truth."""

import numpy as np
import pytest
import sklearn.metrics as reference
from scipy.stats import beta, norm, t

from dr_cli.scoring import intervals, metrics


def two_eyes(patients, seed=0):
    """Grades, predictions and scores of patients whose eyes are alike; unit [2 P]."""
    rng = np.random.default_rng(seed)
    grade = np.repeat(rng.choice(5, patients, p=[0.4, 0.2, 0.2, 0.1, 0.1]), 2)
    score = grade + np.repeat(rng.normal(size=patients), 2) + 0.3 * rng.normal(size=2 * patients)
    return (
        grade,
        np.clip(score.round(), 0, 4).astype(int),
        score.round(1),
        np.arange(2 * patients) // 2,
    )


def every_weight(units, replicates, seed=0):
    return np.concatenate(list(intervals.draws(units, replicates, seed)))


def test_draws_are_whole_patients_repeatable_and_independent_of_blocks(monkeypatch):
    weights = every_weight(50, 40)
    assert weights.shape == (40, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert (weights >= 0).all()
    assert (every_weight(50, 40) == weights).all()
    assert (every_weight(50, 15) == weights[:15]).all()
    assert (every_weight(50, 40, seed=1) != weights).any()
    monkeypatch.setattr(intervals, "BLOCK", 120)  # two rows at a time
    assert (every_weight(50, 40) == weights).all()


def test_replicates_equal_scikit_learn_on_images_copied_as_often_as_drawn():
    grade, predicted, score, unit = two_eyes(60)
    confusion = intervals.count_confusion(grade, predicted, 5, unit)
    got = intervals.measure(
        {"counts": confusion, "auc": metrics.weigh_roc_area(grade >= 2, score, unit)},
        60,
        25,
        seed=3,
    )
    figures = {
        name: figure.of(got["counts"]) for name, figure in metrics.FIGURES.items() if figure.of
    }
    as_they_are = np.ones((1, 60), int)
    for row, weights in enumerate(np.concatenate([as_they_are, every_weight(60, 25, seed=3)])):
        images = np.repeat(np.arange(120), weights[unit])
        true, called = grade[images], predicted[images]
        expected = {
            "accuracy": reference.accuracy_score(true, called),
            "balanced_accuracy": reference.balanced_accuracy_score(true, called),
            "qwk": reference.cohen_kappa_score(true, called, weights="quadratic", labels=range(5)),
            "macro_f1": reference.f1_score(true, called, average="macro"),
            "mean_absolute_error": reference.mean_absolute_error(true, called),
        }
        for name, value in expected.items():
            assert figures[name][row] == pytest.approx(value, abs=1e-12), name
        assert got["auc"][row] == pytest.approx(reference.roc_auc_score(true >= 2, score[images]))


def test_fellow_eyes_that_fully_agree_add_no_certainty():
    """Each patient's image twice is the same information: the same replicates, no closer."""
    grade, predicted, _, _ = two_eyes(40)
    once, unit = slice(0, None, 2), np.arange(40)
    pair = grade[once], predicted[once]
    single = intervals.count_confusion(*pair, 5, unit)
    double = intervals.count_confusion(*np.repeat(pair, 2, axis=1), 5, np.repeat(unit, 2))
    got = intervals.measure({"single": single, "double": double}, 40, 200, seed=0)
    kappas = {k: metrics.quadratic_weighted_kappa_of(v) for k, v in got.items()}
    assert kappas["single"] == pytest.approx(kappas["double"])


def test_intervals_hold_the_truth_as_often_as_they_say():
    """1,500 sets of 150 patients, two eyes each, right with a chance of the patient's own.

    The chance is Beta(4, 1): 0.8 on average, and fellow eyes are correlated (1 / 6 more than
    by chance). With 1,500 sets, 95% shows as 93.9-96.1%, so 93-97% fails a wrong method: images
    drawn instead of patients must fall below what patients reach.
    """
    rng = np.random.default_rng(2024)
    patients, sets = 150, 1500
    unit = np.arange(2 * patients) // 2
    weights = {True: every_weight(patients, 300), False: every_weight(2 * patients, 300)}
    held = {True: 0, False: 0}
    for _ in range(sets):
        right = (rng.random(2 * patients) < np.repeat(rng.beta(4, 1, patients), 2)).astype(int)
        for by_patient, drawn in weights.items():
            whose = unit if by_patient else np.arange(2 * patients)
            shares = metrics.accuracy_of(
                intervals.count_confusion(np.ones_like(right), right, 2, whose)(drawn)
            )
            low, high = intervals.interval(shares, right.mean(), drawn.shape[1])
            held[by_patient] += low <= 0.8 <= high
    assert 0.93 <= held[True] / sets <= 0.97
    assert held[False] < held[True] - 0.01 * sets


def test_where_replicates_tell_nothing_there_is_no_interval():
    assert intervals.interval(np.empty(0), 0.7, 50) is None
    assert intervals.interval(np.full(100, np.nan), 0.7, 50) is None
    assert intervals.interval(np.full(100, 0.7), 0.7, 50) is None  # resampling cannot move it
    some = np.linspace(0, 1, 100)
    assert intervals.interval(some, 0.5, 1) is None  # one patient
    assert intervals.interval(np.where(np.arange(100) < 6, np.nan, some), 0.5, 50) is None
    assert intervals.interval(np.where(np.arange(100) < 5, np.nan, some), 0.5, 50) is not None


def test_with_many_patients_and_no_bias_the_interval_is_of_plain_percentiles():
    replicates = np.random.default_rng(0).normal(size=20_001)
    plain = pytest.approx(np.percentile(replicates, [2.5, 97.5]), abs=0.005)
    assert intervals.interval(replicates, float(np.median(replicates)), 10**6) == plain
    assert intervals.difference_interval(replicates, 10**6) == plain


def test_the_interval_moves_for_bias_and_widens_for_few_patients():
    """Where replicates are normal, what BC and expanded percentiles give is known."""
    replicates = norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    few = np.sqrt(8 / 7) * t.ppf(0.975, 7)
    assert intervals.interval(replicates, 0.0, 8) == pytest.approx([-few, few], abs=0.01)
    assert intervals.difference_interval(replicates, 8) == pytest.approx([-few, few], abs=0.01)
    many = norm.ppf(0.975)
    assert intervals.interval(replicates, 0.3, 10**6) == pytest.approx(
        [0.6 - many, 0.6 + many], abs=0.01
    )


def test_a_share_at_its_end_has_the_exact_binomial_bound():
    still = np.ones(50)
    assert intervals.proportion_interval(still, 1.0, 13) == [
        pytest.approx(beta.ppf(0.025, 13, 1)),
        1.0,
    ]
    assert intervals.proportion_interval(still, 0.0, 13) == [
        0.0,
        pytest.approx(beta.ppf(0.975, 1, 13)),
    ]
    between = np.linspace(0.4, 0.6, 50)
    assert intervals.proportion_interval(between, 0.5, 13) == intervals.interval(between, 0.5, 13)


@pytest.mark.parametrize("units", [6, 40, 10**6])
def test_p_is_below_5_percent_where_the_interval_leaves_out_0(units):
    centred = np.random.default_rng(0).normal(size=20_000)
    told = set()
    for shift in np.linspace(0, 4, 41):
        p = intervals.p_value(centred + shift, units)
        low, _ = intervals.difference_interval(centred + shift, units)
        assert 0 < p <= 1
        assert intervals.p_value(-centred - shift, units) == pytest.approx(p)
        if abs(low) > 0.02:  # the one replicate added moves p a little
            assert (p < 0.05) == (low > 0)
            told.add(p < 0.05)
    assert told == {True, False}
    assert intervals.p_value(np.zeros(100), units) == 1
    assert intervals.p_value(np.full(100, np.nan), units) is None
