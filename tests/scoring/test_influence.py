"""What each patient moves a figure by: against the figure without them."""

import numpy as np
import pytest

from dr_cli.scoring import influence, metrics


def two_eyes(patients, seed=0):
    """Grades, answers and scores of patients with one to three images each, unit [N]."""
    rng = np.random.default_rng(seed)
    unit = np.repeat(np.arange(patients), rng.integers(1, 4, patients))
    truth = rng.integers(0, 5, patients)[unit]
    score = truth + rng.normal(size=patients)[unit] + 0.5 * rng.normal(size=len(unit))
    return truth, np.clip(score.round(), 0, 4).astype(int), score.round(1), unit


def leave_each_out(figure, unit):
    """The jackknife as books have it: the figure of all less that of all but one, scaled."""
    everyone = figure(np.ones(len(unit), bool))
    moved = np.array([everyone - figure(unit != k) for k in np.unique(unit)])
    return np.sqrt((len(moved) - 1) / len(moved)) * (moved - moved.mean())


def test_influences_on_a_figure_of_counts_are_the_jackknifes():
    truth, said, _, unit = two_eyes(25)
    for figure in (metrics.quadratic_weighted_kappa_of, metrics.mean_absolute_error_of):
        got = influence.of_counts(figure, truth, said, 5, unit)
        expected = leave_each_out(
            lambda kept, of=figure: float(of(metrics.confusion_counts(truth[kept], said[kept]))),
            unit,
        )
        assert got == pytest.approx(expected, abs=1e-12)
        assert got.sum() == pytest.approx(0, abs=1e-12)


def test_influences_on_a_ratio_are_the_jackknifes():
    rng = np.random.default_rng(1)
    part, whole = rng.random(9), 1 + rng.random(9)
    got = influence.of_ratio(part, whole)
    expected = leave_each_out(lambda kept: part[kept].sum() / whole[kept].sum(), np.arange(9))
    assert got == pytest.approx(expected)
    assert np.isnan(influence.of_ratio(part[:2], np.array([1.0, 0.0]))).any()


def test_influences_on_an_area_are_delongs_and_know_fellow_eyes():
    """Against all pairs, written out, where each image is a patient of its own."""
    rng = np.random.default_rng(2)
    truth, score = rng.random(80) < 0.4, rng.normal(size=80).round(1)
    score = score + truth
    won = (score[truth][:, None] > score[~truth]) + (score[truth][:, None] == score[~truth]) / 2
    v10, v01 = won.mean(axis=1), won.mean(axis=0)
    variance = v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)
    own = influence.of_area(truth, score, np.arange(80))
    assert own @ own == pytest.approx(variance)
    twice = influence.of_area(*(np.repeat(x, 2) for x in (truth, score, np.arange(80))))
    assert twice == pytest.approx(own)  # the same image again tells nothing
    assert influence.of_area(truth, score, np.zeros(80, int)) is None
    truth, _, score, unit = two_eyes(400)
    near = leave_each_out(lambda kept: metrics.auc(truth[kept] >= 2, score[kept]), unit)
    got = influence.of_area(truth >= 2, score, unit)
    assert np.corrcoef(got, near)[0, 1] > 0.999
    assert got @ got == pytest.approx(near @ near, rel=0.02)
