"""Runs against each other on the same images."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from dr_cli.errors import UsageError
from dr_cli.grades import OperatingPoint, Threshold
from dr_cli.scoring import flips, metrics
from dr_cli.scoring.comparison import compare, mcnemar
from tests.builders.predictions import binary, table


def worse(rows, noise, seed=1):
    """The same images as a worse network sees them."""
    rng = np.random.default_rng(seed)
    columns = [f"p{k}" for k in range(5)]
    p = rows[columns].to_numpy() ** (1 - noise) * rng.dirichlet(np.full(5, 2.0), len(rows)) ** noise
    p /= p.sum(axis=1, keepdims=True)
    return rows.assign(**dict(zip(columns, p.T, strict=True)), predicted=p.argmax(axis=1))


def test_a_better_run_is_told_from_a_worse_one():
    good = table(150)
    (pair,) = compare([("good", good), ("bad", worse(good, 0.75))], bootstrap=400)
    assert (pair["a"], pair["b"], pair["n"], pair["patients"]) == ("good", "bad", 300, 150)
    for figure in ("qwk", "referable_auc"):
        found = pair[figure]
        assert found["difference"] == pytest.approx(found["a"] - found["b"])
        assert 0 < found["ci95"][0] < found["difference"] < found["ci95"][1]
        assert found["p"] == found["p_holm"] == found["p_adjusted"] < 0.05
    grade = pair["mcnemar_grade"]
    assert grade["a_only"] > grade["b_only"]
    assert grade["p"] < 0.05
    assert pair["qwk"]["a"] == metrics.quadratic_weighted_kappa(good["grade"], good["predicted"])


def test_the_difference_is_of_the_same_patients():
    """Against the jackknife by a loop; the order of either table's rows does not matter."""
    a = table(40)
    b = worse(a, 0.4)
    (pair,) = compare([("a", a), ("b", b.sample(frac=1, random_state=0))], bootstrap=50, seed=7)

    def subtract(kept):
        kappas = [
            metrics.quadratic_weighted_kappa(t["grade"][kept], t["predicted"][kept]) for t in (a, b)
        ]
        return kappas[0] - kappas[1]

    moved = np.array([subtract(a["patient"] != name) for name in a["patient"].unique()])
    everyone = subtract(a["path"] != "")
    moved = (moved.mean() - moved) * np.sqrt(39 / 40)
    assert pair["qwk"]["difference"] == pytest.approx(everyone)
    assert pair["qwk"]["ci95"] == pytest.approx(flips.interval(everyone / 40 + moved))
    assert pair["qwk"]["p"] == pytest.approx(flips.p_value(everyone / 40 + moved))


def test_a_run_against_its_copy_differs_in_nothing():
    rows = table(30)
    (pair,) = compare([("a", rows), ("copy", rows)], bootstrap=50)
    assert pair["qwk"]["difference"] == 0
    assert pair["qwk"]["p"] == pair["mcnemar_grade"]["p"] == pair["mcnemar_referable"]["p"] == 1


def test_each_run_is_taken_at_its_own_threshold():
    rows = table(60)
    score = rows[["p2", "p3", "p4"]].sum(axis=1)
    low, high = 0.2, 0.8
    (pair,) = compare(
        [("a", rows), ("b", rows)],
        [OperatingPoint(Threshold(value, "")) for value in (low, high)],
        bootstrap=0,
    )
    truth = rows["grade"] >= 2
    a_right, b_right = (score >= low) == truth, (score >= high) == truth
    assert pair["mcnemar_referable"]["a_only"] == (a_right & ~b_right).sum() > 0
    assert pair["mcnemar_referable"]["b_only"] == (b_right & ~a_right).sum() > 0
    assert pair["qwk"]["ci95"] is None
    assert pair["qwk"]["p"] is None is pair["qwk"]["p_holm"]


def test_three_runs_make_three_pairs_corrected_together():
    rows = table(60)
    pairs = compare(
        [("a", rows), ("b", worse(rows, 0.5)), ("c", worse(rows, 0.5, seed=2))], bootstrap=200
    )
    assert [(p["a"], p["b"]) for p in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    for test in ("qwk", "referable_auc", "mcnemar_referable", "mcnemar_grade"):
        told = [pair[test] for pair in pairs]
        assert [one["p_holm"] for one in told] == flips.holm([one["p"] for one in told])
        assert all(one["p"] <= one["p_adjusted"] <= one["p_holm"] for one in told)


def test_a_binary_table_compares_with_a_graded_one():
    rows = table(40)
    theirs = binary(rows)
    theirs["referable_probability"] **= 2
    (pair,) = compare([("ours", rows), ("theirs", theirs)], bootstrap=50)
    assert pair["qwk"] is None is pair["mcnemar_grade"]
    assert pair["referable_auc"]["difference"] == pytest.approx(0)  # a square keeps the order
    assert pair["patients"] == 40


def test_tables_about_other_images_or_other_grades_are_refused():
    rows = table(20)
    with pytest.raises(UsageError, match=r"not about the same images: 1 stand.* such as 10\.jpg"):
        compare([("a", rows), ("b", rows[rows["path"] != "10.jpg"])])
    other = rows.assign(
        grade=rows["grade"].where(rows["path"] != "7.jpg", 4 - rows["grade"] // 4 * 4)
    )
    with pytest.raises(UsageError, match=r"1 images for another true grade, such as 7\.jpg"):
        compare([("a", rows), ("b", other)])
    for runs in ([("a", rows)], [("a", rows), ("a", rows)]):
        with pytest.raises(UsageError, match="two or more different runs"):
            compare(runs)
    with pytest.raises(UsageError, match=r"b, line 2, column p0"):
        compare([("a", rows), ("b", rows.assign(p0=np.nan))])


def test_a_large_difference_stays_significant_among_many_runs():
    """Twelve runs, 66 pairs: one run is worthless, and every pair with it must tell. A p counted
    in replicates cannot be below 1 / B; Holm's correction of it would be 0.07."""
    good = table(100)
    runs = [(f"good {k}", worse(good, 0.2, seed=k)) for k in range(11)]
    pairs = compare([*runs, ("worthless", worse(good, 0.97))], bootstrap=1000)
    for test in ("qwk", "referable_auc"):
        told = [pair[test] for pair in pairs if pair["b"] == "worthless"]
        assert len(told) == 11
        assert all(one["p_adjusted"] <= one["p_holm"] < 0.001 for one in told)
        assert all(one["ci95"][0] > 0 for one in told)


# --- McNemar


def test_mcnemar_is_fagerlands_mid_p_where_each_patient_has_one_image():
    for a_only, b_only in [(0, 1), (1, 8), (5, 5), (6, 23), (16, 16 + 59)]:
        n = a_only + b_only + 10  # ten more on which the runs agree
        a_right, b_right = np.zeros(n, bool), np.zeros(n, bool)
        a_right[:a_only] = True
        b_right[a_only : a_only + b_only] = True
        few, all_ = min(a_only, b_only), a_only + b_only
        mid_p = 2 * binom.cdf(few, all_, 0.5) - binom.pmf(few, all_, 0.5)
        if a_only == b_only:
            mid_p = 1 - binom.pmf(few, all_, 0.5) / 2
        got = mcnemar(a_right, b_right, np.arange(n))
        assert (got["a_only"], got["b_only"]) == (a_only, b_only)
        assert got["p"] == pytest.approx(mid_p, rel=1e-9)


def test_mcnemar_with_fellow_eyes_against_all_signs_written_out():
    rng = np.random.default_rng(3)
    for _ in range(20):
        unit = np.repeat(np.arange(9), rng.integers(1, 4, 9))
        a_right, b_right = rng.random(len(unit)) < 0.7, rng.random(len(unit)) < 0.4
        surplus = np.bincount(unit, a_right.astype(float) - b_right)
        sums = np.array([np.dot(signs, surplus) for signs in product((-1, 1), repeat=9)])
        reached = abs(surplus.sum())
        mid_p = (np.abs(sums) > reached).mean() + (np.abs(sums) == reached).mean() / 2
        if not surplus.any():
            mid_p = 1
        assert mcnemar(a_right, b_right, unit)["p"] == pytest.approx(mid_p)


def test_agreeing_fellow_eyes_do_not_make_mcnemar_surer():
    a_right, b_right = np.arange(12) < 9, np.arange(12) >= 9
    once = mcnemar(a_right, b_right, np.arange(12))
    twice = mcnemar(np.repeat(a_right, 2), np.repeat(b_right, 2), np.repeat(np.arange(12), 2))
    assert twice["p"] == pytest.approx(once["p"])
    assert mcnemar(np.repeat(a_right, 2), np.repeat(b_right, 2), np.arange(24))["p"] < once["p"]
