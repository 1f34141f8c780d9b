"""Two eyes read together: Bayes' rule where it holds, nothing where the other eye tells nothing."""

import numpy as np
import pandas as pd
import pytest

from dr_cli.grades import Calibration, Fellow
from dr_cli.scoring import metrics
from dr_cli.scoring.both_eyes import Pairs, find_fellows, join, join_rows


def eyes(patients, agreement, seed=0, noise=1.0):
    """(table, probabilities): grades that agree in that share, each seen through noise alone."""
    rng = np.random.default_rng(seed)
    share = np.array([0.5, 0.1, 0.2, 0.1, 0.1])
    left = rng.choice(5, patients, p=share)
    right = np.where(rng.random(patients) < agreement, left, rng.choice(5, patients, p=share))
    grade = np.stack([left, right], 1).ravel()
    seen = grade + noise * rng.normal(size=len(grade))
    likelihood = np.exp(-((seen[:, None] - np.arange(5)) ** 2) / (2 * noise**2)) * share
    table = pd.DataFrame(
        {
            "patient": np.repeat(np.arange(patients), 2).astype(str),
            "eye": ["left", "right"] * patients,
            "grade": grade,
        }
    )
    return table, likelihood / likelihood.sum(1, keepdims=True)


def test_full_weight_is_bayes_rule():
    joint = np.random.default_rng(0).random((5, 5)) + 0.1
    joint = (joint + joint.T) / (joint + joint.T).sum()
    share = joint.sum(1)
    rng = np.random.default_rng(1)
    seen = rng.random((2, 5))  # p(photograph | grade) of either eye
    own, other = (one * share / (one * share).sum() for one in seen)
    expected = np.array(
        [sum(seen[0][g] * seen[1][h] * joint[g, h] for h in range(5)) for g in range(5)]
    )
    rule = Fellow(tuple(map(tuple, joint.tolist())), 1.0)
    assert rule.join(own[None], other[None])[0] == pytest.approx(expected / expected.sum())


def test_the_other_eye_makes_unseen_eyes_likelier_and_better_graded():
    train, _ = eyes(3000, 0.8, seed=1)
    val, p_val = eyes(300, 0.8, seed=2)
    pairs = Pairs.of(train, val)
    rule = pairs.fit(val["grade"].to_numpy(), p_val)
    assert rule is not None
    assert rule.weight > 0.6  # what was drawn is independent given the grades
    test, p = eyes(2000, 0.8, seed=3)
    joined, grade = join_rows(test, p, rule), test["grade"].to_numpy()
    assert (
        metrics.negative_log_likelihood(grade, joined)
        < metrics.negative_log_likelihood(grade, p) - 0.1
    )
    kappa = [metrics.quadratic_weighted_kappa(grade, one.argmax(1)) for one in (p, joined)]
    assert kappa[1] > kappa[0] + 0.03


def test_an_eye_that_tells_nothing_is_hardly_heard():
    train, _ = eyes(3000, 0.0, seed=1)
    val, p_val = eyes(400, 0.0, seed=2)
    rule = Pairs.of(train, val).fit(val["grade"].to_numpy(), p_val)
    joined = join(p_val, find_fellows(val), rule)
    assert np.abs(joined - p_val).max() < 0.1


def test_an_eye_alone_stays_as_it_is():
    train, _ = eyes(500, 0.9)
    rule = Fellow(Pairs.of(train, train).joint, 1.0)
    table, p = eyes(3, 0.9, seed=4)
    alone = table.assign(
        patient=["a", "b", "c", "c", None, None],
        eye=["left", "right", "left", "right", "left", None],
    )
    assert find_fellows(alone).tolist() == [-1, -1, 3, 2, -1, -1]
    joined = join_rows(alone, p, rule)
    assert np.array_equal(joined[[0, 1, 4, 5]], p[[0, 1, 4, 5]])
    assert not np.allclose(joined[[2, 3]], p[[2, 3]])
    assert joined.sum(1) == pytest.approx(np.ones(6))


def test_it_travels_with_the_weights():
    rule = Fellow(((0.1,) * 5,) * 5, 0.35)
    one = Calibration((0.5, 1.5, 2.5, 3.5), 1.2, None, "accuracy", rule)
    assert Calibration.from_record(one.to_record()) == one
    assert Calibration.pooled([one, Calibration()]).fellow is None
    other = Calibration(fellow=Fellow(((0.1,) * 5,) * 5, 0.45))
    assert Calibration.pooled([one, other]).fellow.weight == pytest.approx(0.4)
