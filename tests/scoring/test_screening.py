"""What alarms are worth, held to scikit-learn and to formulas written out."""

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression

from dr_cli.errors import UsageError
from dr_cli.grades import Calibration, OperatingPoint, Threshold
from dr_cli.scoring import screening
from dr_cli.scoring.flat import flatten
from dr_cli.scoring.record import Scoring, build_record
from tests.builders.predictions import P, binary, table

FIRST = {"referable": 2, "sight_threatening": 3}
POINT = Calibration(operating_point=OperatingPoint(Threshold(0.3, "x"), Threshold(0.6, "x")))


def score(rows, **scoring):
    return build_record(rows, calibration=POINT, scoring=Scoring(**{"bootstrap": 0, **scoring}))


@pytest.mark.parametrize("name", FIRST)
def test_counts_predictive_values_and_likelihood_ratios_are_scikit_learns(name):
    rows, threshold = table(80), 0.3 if name == "referable" else 0.6
    truth = rows["grade"] >= FIRST[name]
    called = rows[P[FIRST[name] :]].sum(axis=1) >= threshold
    found = score(rows)[name]
    tn, fp, fn, tp = reference.confusion_matrix(truth, called).ravel().tolist()
    assert found["counts"] == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    assert found["prevalence"] == pytest.approx(truth.mean())
    assert found["ppv"]["value"] == pytest.approx(reference.precision_score(truth, called))
    assert found["npv"]["value"] == pytest.approx(reference.precision_score(~truth, ~called))
    plus, minus = reference.class_likelihood_ratios(truth, called)
    assert found["likelihood_ratio_positive"]["value"] == pytest.approx(plus)
    assert found["likelihood_ratio_negative"]["value"] == pytest.approx(minus)


def test_predictive_values_at_a_prevalence_are_those_of_images_weighed_to_it():
    rows, prevalence = table(80), 0.07
    truth, called = rows["grade"] >= 2, rows[P[2:]].sum(axis=1) >= 0.3
    weight = np.where(truth, prevalence / truth.mean(), (1 - prevalence) / (1 - truth.mean()))
    found = score(rows, prevalences=(prevalence, truth.mean()))["referable"]
    at, here = found["at_prevalence"]
    assert at["prevalence"] == prevalence
    assert at["ppv"]["value"] == pytest.approx(
        reference.precision_score(truth, called, sample_weight=weight)
    )
    assert at["npv"]["value"] == pytest.approx(
        reference.precision_score(~truth, ~called, sample_weight=weight)
    )
    assert here["ppv"]["value"] == pytest.approx(found["ppv"]["value"])
    assert here["npv"]["value"] == pytest.approx(found["npv"]["value"])


@pytest.mark.parametrize("prevalence", [0, 1, -0.1, 5, float("nan")])
def test_a_prevalence_is_a_share(prevalence):
    with pytest.raises(UsageError, match="is no share between 0 and 1"):
        screening.check_prevalences([0.1, prevalence])


def test_slope_and_intercept_are_those_of_a_logistic_regression():
    rows = table(300)
    truth, p = rows["grade"] >= 2, rows[P[2:]].sum(axis=1).clip(5e-7, 1 - 5e-7)
    found = score(rows)["referable"]["calibration"]
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(p).to_frame(), truth)
    assert found["slope"]["value"] == pytest.approx(fit.coef_[0, 0], rel=1e-4)
    shifted = expit(logit(p) + found["intercept"]["value"])  # the shift that makes the means equal
    assert shifted.mean() == pytest.approx(truth.mean(), abs=1e-9)
    assert found["observed_expected"]["value"] == pytest.approx(truth.sum() / p.sum(), rel=1e-5)
    assert found["slope"]["ci95"] is None  # no replicates were asked for


def test_intervals_of_slope_and_intercept_are_as_wide_as_leaving_out_patients_says():
    """The jackknife over patients; two like eyes of a patient count once."""
    rows = table(150)
    found = score(rows, bootstrap=10)["referable"]["calibration"]
    without = [
        score(part)["referable"]["calibration"]
        for part in (rows[rows["patient"] != name] for name in rows["patient"].unique())
    ]
    for name in ("slope", "intercept"):
        values = np.array([one[name]["value"] for one in without])
        error = np.sqrt((len(values) - 1) * values.var())
        low, high = found[name]["ci95"]
        assert (high - low) / 2 == pytest.approx(1.976 * error, rel=0.1)
    single = rows.iloc[::2]
    twice = pd.concat([single, single.assign(path="again-" + single["path"])])
    one, two = (score(part, bootstrap=10)["referable"]["calibration"] for part in (single, twice))
    assert one["slope"]["ci95"] == pytest.approx(two["slope"]["ci95"])


def test_slope_and_intercept_of_fewer_than_five_patients_of_a_class_have_no_interval():
    rows = table(60)
    ill, well = (rows[(rows["grade"] >= 2) == truth] for truth in (True, False))
    for few, known in ((4, False), (5, True)):
        for rare, other in ((ill, well), (well, ill)):
            names = rare["patient"].unique()[:few]
            part = pd.concat([rare[rare["patient"].isin(names)], other])
            found = score(part, bootstrap=10)["referable"]["calibration"]
            for name in ("slope", "intercept"):
                assert found[name]["value"] is not None
                assert (found[name]["ci95"] is not None) == known


def test_probabilities_that_are_too_extreme_have_a_slope_below_one_and_too_high_ones_expect_more():
    generator = np.random.default_rng(0)
    honest = expit(generator.normal(0, 1.5, 20_000))
    rows = pd.DataFrame({"path": np.arange(20_000).astype(str)}).assign(
        referable=generator.random(20_000) < honest, referable_probability=honest
    )
    told = score(rows, bootstrap=200)["referable"]["calibration"]
    assert told["slope"]["ci95"][0] < 1 < told["slope"]["ci95"][1]
    assert told["intercept"]["ci95"][0] < 0 < told["intercept"]["ci95"][1]
    assert told["observed_expected"]["ci95"][0] < 1 < told["observed_expected"]["ci95"][1]
    extreme = score(rows.assign(referable_probability=expit(2 * logit(honest))))["referable"]
    assert extreme["calibration"]["slope"]["value"] == pytest.approx(
        told["slope"]["value"] / 2, rel=1e-3
    )
    high = score(rows.assign(referable_probability=expit(logit(honest) + 1)))["referable"]
    assert high["calibration"]["intercept"]["value"] == pytest.approx(
        told["intercept"]["value"] - 1, abs=1e-3
    )
    assert high["calibration"]["observed_expected"]["value"] < 0.8
    assert high["calibration"]["ece"] > 5 * told["ece"]


def test_the_curve_of_p_is_of_p_itself_not_of_the_likelier_answer():
    rows = binary(table(80))
    found = score(rows)["referable"]["calibration"]
    p, truth = rows["referable_probability"], rows["referable"]
    cells = pd.cut(p, np.linspace(0, 1, 16), labels=False, include_lowest=True)
    by = pd.DataFrame({"p": p, "truth": truth}).groupby(cells)
    filled = [b for b in found["curve"] if b["n"]]
    assert [b["n"] for b in filled] == by.size().tolist()
    assert [b["predicted"] for b in filled] == pytest.approx(by["p"].mean().tolist())
    assert [b["observed"] for b in filled] == pytest.approx(by["truth"].mean().tolist())
    gaps = (by["p"].mean() - by["truth"].mean()).abs() * by.size()
    assert found["ece"] == pytest.approx(gaps.sum() / len(rows))


def test_net_benefit_is_true_alarms_less_false_ones_at_the_thresholds_odds():
    rows = table(40)
    truth, p = rows["grade"] >= 2, rows[P[2:]].sum(axis=1)
    curve = score(rows)["referable"]["decision_curve"]
    assert curve["threshold"] == pytest.approx(np.arange(0.02, 0.99, 0.02))
    for t, network, everyone in zip(*(curve[k] for k in list(curve)[:3]), strict=True):
        told = [(c & truth).mean() - (c & ~truth).mean() * t / (1 - t) for c in (p >= t, p >= 0)]
        assert (network, everyone) == pytest.approx(tuple(told))
    assert curve["refer_none"] == 0


def test_figures_per_patient_are_of_the_worst_eye():
    rows = table(60)
    rows = pd.concat([rows, table(5, seed=1).assign(patient=None, path=lambda t: "x" + t["path"])])
    found = score(rows)["per_patient"]
    worst = rows.assign(p=rows[P[2:]].sum(axis=1)).groupby("patient")[["grade", "predicted", "p"]]
    worst, truth = worst.max(), worst.max()["grade"] >= 2
    assert (found["n"], found["images"]) == (60, 120)
    assert found["qwk"]["value"] == pytest.approx(
        reference.cohen_kappa_score(worst["grade"], worst["predicted"], weights="quadratic")
    )
    told = found["referable"]
    assert told["auc"]["value"] == pytest.approx(reference.roc_auc_score(truth, worst["p"]))
    assert told["sensitivity"]["value"] == reference.recall_score(truth, worst["p"] >= 0.3)
    assert told["specificity"]["value"] == reference.recall_score(~truth, worst["p"] < 0.3)
    assert score(rows.assign(patient=None))["per_patient"] is None
    alone = score(rows[rows["patient"].notna()].iloc[::2], bootstrap=50)
    assert alone["per_patient"]["qwk"] == alone["qwk"]  # one image a patient: the same


def test_what_cannot_be_told_is_null():
    rows = table(20)
    healthy = json.loads(json.dumps(score(rows[rows["grade"] < 2], bootstrap=50), allow_nan=False))
    found, nothing = healthy["referable"], {"value": None, "ci95": None}
    assert found["ppv"]["value"] == 0
    assert found["likelihood_ratio_positive"] == found["calibration"]["slope"] == nothing
    assert found["at_prevalence"][0]["ppv"] == nothing
    only = score(binary(rows))["sight_threatening"]
    assert only["counts"] is only["calibration"] is only["decision_curve"] is None
    assert only["ppv"] == nothing
    apart = rows.assign(**dict(zip(P, np.eye(5)[rows["grade"]].T, strict=True)))
    assert score(apart)["referable"]["calibration"]["slope"] == nothing  # no maximum
    same = rows.assign(p0=0.5, p1=0, p2=0.5, p3=0, p4=0)
    assert score(same)["referable"]["calibration"]["slope"] == nothing
    assert score(same)["referable"]["calibration"]["intercept"]["value"] is not None


def test_rows_of_a_csv_name_predictive_values_by_their_prevalence():
    told = {name: value for name, value, _ in flatten(score(table(40), prevalences=(0.05,)))}
    assert {"referable.counts.tp", "referable.ppv", "referable.calibration.slope"} <= told.keys()
    assert 0 < told["sight_threatening.at_prevalence=0.05.npv"] < 1
    assert {"referable.calibration.ece", "per_patient.n", "per_patient.qwk"} <= told.keys()
