"""Every figure against scikit-learn, or against a second computation written out by hand."""

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st

from dr_cli.scoring import metrics
from tests.builders.predictions import graded

GRADES = list(range(5))
OF_COUNTS = {name: figure.of for name, figure in metrics.FIGURES.items() if figure.of}


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
    for name, figure in OF_COUNTS.items():
        assert figure(counts) == pytest.approx(expected[name], abs=1e-12, nan_ok=True), name
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
    for figure in OF_COUNTS.values():
        assert figure(stack).shape == (3, 2)
        assert figure(stack)[2, 1] == figure(stack[2, 1])


def test_what_is_undefined_is_nan_and_what_is_chance_is_zero():
    nothing = np.zeros((5, 5))
    assert all(np.isnan(figure(nothing)) for figure in OF_COUNTS.values())
    assert np.isnan(metrics.quadratic_weighted_kappa([2, 2], [2, 2]))  # no disagreement possible
    assert metrics.quadratic_weighted_kappa([0, 1, 4], [0, 0, 0]) == 0  # always the same grade
    assert metrics.quadratic_weighted_kappa([2, 2, 2], [0, 1, 4]) == 0  # one grade only


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 3)), min_size=1),
)
def test_area_under_roc_is_scikit_learns_with_ties_and_weights(rows):
    truth, score, weight = (np.array(column) for column in zip(*rows, strict=True))
    area = metrics.weigh_roc_area(truth, score)(np.stack([weight, np.ones_like(weight)]))
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
