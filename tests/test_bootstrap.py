"""Intervals over patients: against scikit-learn on copied images, and against known truth."""

import numpy as np
import pytest
import sklearn.metrics as reference
from scipy.stats import beta

from dr_cli import bootstrap, metrics


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
    return np.concatenate(list(bootstrap.draws(units, replicates, seed)))


def test_draws_are_whole_patients_repeatable_and_independent_of_blocks(monkeypatch):
    weights = every_weight(50, 40)
    assert weights.shape == (40, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert (weights >= 0).all()
    assert (every_weight(50, 40) == weights).all()
    assert (every_weight(50, 15) == weights[:15]).all()
    assert (every_weight(50, 40, seed=1) != weights).any()
    monkeypatch.setattr(bootstrap, "BLOCK", 120)  # two rows at a time
    assert (every_weight(50, 40) == weights).all()


def test_replicates_equal_scikit_learn_on_images_copied_as_often_as_drawn():
    grade, predicted, score, unit = two_eyes(60)
    confusion = bootstrap.cell_counts(grade * 5 + predicted, 25, unit)
    got = bootstrap.replicate(
        {"counts": confusion, "auc": metrics.RocArea(grade >= 2, score, unit)}, 60, 25, seed=3
    )
    figures = {name: f(got["counts"].reshape(-1, 5, 5)) for name, f in metrics.FIGURES.items()}
    for row, weights in enumerate(every_weight(60, 25, seed=3)):
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
    """Each patient's image twice is the same information: the same interval, not a narrower."""
    grade, predicted, _, _ = two_eyes(40)
    once, unit = slice(0, None, 2), np.arange(40)
    single = bootstrap.cell_counts((grade * 5 + predicted)[once], 25, unit)
    double = bootstrap.cell_counts(
        np.repeat((grade * 5 + predicted)[once], 2), 25, np.repeat(unit, 2)
    )
    got = bootstrap.replicate({"single": single, "double": double}, 40, 200, seed=0)
    kappas = {k: metrics.quadratic_weighted_kappa_of(v.reshape(-1, 5, 5)) for k, v in got.items()}
    assert bootstrap.interval(kappas["single"]) == pytest.approx(
        bootstrap.interval(kappas["double"])
    )


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
            shares = bootstrap.cell_counts(right, 2, whose)(drawn)
            low, high = bootstrap.interval(shares[:, 1] / shares.sum(axis=1))
            held[by_patient] += low <= 0.8 <= high
    assert 0.93 <= held[True] / sets <= 0.97
    assert held[False] < held[True] - 0.01 * sets


def test_where_replicates_tell_nothing_there_is_no_interval():
    assert bootstrap.interval(np.empty(0)) is None
    assert bootstrap.interval(np.full(100, np.nan)) is None
    assert bootstrap.interval(np.full(100, 0.7)) is None  # resampling cannot move it
    some = np.linspace(0, 1, 100)
    assert bootstrap.interval(np.where(np.arange(100) < 6, np.nan, some)) is None
    assert bootstrap.interval(np.where(np.arange(100) < 5, np.nan, some)) == pytest.approx(
        np.percentile(some[5:], [2.5, 97.5])
    )


def test_a_share_at_its_end_has_the_exact_binomial_bound():
    still = np.ones(50)
    assert bootstrap.proportion_interval(still, 1.0, 13) == [
        pytest.approx(beta.ppf(0.025, 13, 1)),
        1.0,
    ]
    assert bootstrap.proportion_interval(still, 0.0, 13) == [
        0.0,
        pytest.approx(beta.ppf(0.975, 1, 13)),
    ]
    between = np.linspace(0.4, 0.6, 50)
    assert bootstrap.proportion_interval(between, 0.5, 13) == bootstrap.interval(between)


def test_p_agrees_with_the_interval():
    rng = np.random.default_rng(0)
    for shift in np.linspace(0, 4, 30):
        replicates = shift + rng.normal(size=2000)
        p, (low, _) = bootstrap.p_value(replicates), bootstrap.interval(replicates)
        assert 0 < p <= 1
        if abs(low) > 0.02:
            assert (p < 0.05) == (low > 0)
    assert bootstrap.p_value(np.zeros(100)) == 1
    assert bootstrap.p_value(np.full(100, np.nan)) is None
