"""Predictions to record: the contract's fields, every undefined case, every bad table."""

import json

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from dr_cli.errors import UsageError
from dr_cli.grades import Calibration, OperatingPoint, Threshold
from dr_cli.scoring.calibration import choose_operating_point, retemper
from dr_cli.scoring.comparison import compare
from dr_cli.scoring.doubts import doubt_leaks
from dr_cli.scoring.flat import flatten
from dr_cli.scoring.record import Context, Scoring, build_record
from tests.builders.predictions import HEADLINE, P, binary, table

WARM = Calibration(temperature=1.5)


def plain(record):
    """As JSON has it: fails on NaN, on numpy numbers, on anything else that is not plain."""
    return json.loads(json.dumps(record, allow_nan=False))


# --- the contract


def test_a_record_has_the_fields_of_the_contract_in_its_order():
    record = plain(
        build_record(table(60), Context("r", "d"), calibration=WARM, scoring=Scoring(100))
    )
    promised = [
        *("run", "data", "split", "n", "patients", "failed", "grade_counts", *HEADLINE),
        *("referable", "calibration", "per_grade", "confusion", "baselines", "warnings"),
    ]
    assert [name for name in record if name in promised] == promised
    assert (record["n"], record["patients"], record["failed"]) == (120, 60, 0)
    for name in HEADLINE:
        low, high = record[name]["ci95"]
        assert low < record[name]["value"] < high
    assert {"auc", "threshold", "sensitivity", "specificity", "threshold_from"} <= set(
        record["referable"]
    )
    assert {"ece", "brier", "nll", "temperature"} <= set(record["calibration"])
    assert len(record["per_grade"]) == 5
    rates = {"precision", "recall", "specificity", "f1", "auc"}
    assert {"grade", "name", "support", "patients", "ci95"} | rates == set(record["per_grade"][0])
    for row in record["per_grade"]:
        assert set(row["ci95"]) == rates
        assert all(low <= row[name] <= high for name, (low, high) in row["ci95"].items())
    told = record["calibration"]
    assert set(told["ci95"]) == {"ece", "brier", "nll"}
    assert all(low < told[name] < high for name, (low, high) in told["ci95"].items())
    assert set(record["baselines"]) == {"majority", "fellow_eye"}


def test_values_are_scikit_learns():
    rows = table(80)
    record = build_record(rows, scoring=Scoring(0))
    grade, predicted, p = rows["grade"], rows["predicted"], rows[P].to_numpy()
    assert record["qwk"]["value"] == pytest.approx(
        reference.cohen_kappa_score(grade, predicted, weights="quadratic")
    )
    assert record["confusion"] == reference.confusion_matrix(grade, predicted).tolist()
    assert record["grade_counts"] == np.bincount(grade).tolist()
    for name, first in (("referable", 2), ("sight_threatening", 3)):
        truth, score = grade >= first, p[:, first:].sum(axis=1)
        found = record[name]
        assert found["auc"]["value"] == pytest.approx(reference.roc_auc_score(truth, score))
        assert found["sensitivity"]["value"] == reference.recall_score(truth, score >= 0.5)
        assert found["specificity"]["value"] == pytest.approx(
            reference.recall_score(~truth, score < 0.5)
        )
    for row in record["per_grade"]:
        truth = grade == row["grade"]
        assert row["auc"] == pytest.approx(reference.roc_auc_score(truth, p[:, row["grade"]]))
        assert row["support"] == truth.sum()
    assert record["calibration"]["nll"] == pytest.approx(reference.log_loss(grade, p))
    assert record["qwk"]["ci95"] is None  # no replicates were asked for


def test_calibration_before_is_that_of_the_probabilities_before_the_temperature():
    rows = table(80)
    after = np.exp(np.log(rows[P].to_numpy()) / 2)
    after /= after.sum(axis=1, keepdims=True)
    cooled = rows.assign(**dict(zip(P, after.T, strict=True)))
    before = build_record(rows, scoring=Scoring(0))["calibration"]
    both = build_record(cooled, scoring=Scoring(0), calibration=Calibration(temperature=2.0))[
        "calibration"
    ]
    assert before["before"] is None
    assert both["temperature"] == 2.0
    for name in ("ece", "brier", "nll"):
        assert both["before"][name] == pytest.approx(before[name])
        assert both[name] != pytest.approx(before[name])
    assert [b["n"] for b in both["before"]["curve"]] == [b["n"] for b in before["curve"]]


def test_a_temperature_that_makes_these_images_worse_is_told():
    rows = table(80)

    def told(temperature):
        p = retemper(rows[P].to_numpy(), 1 / temperature)
        tempered = rows.assign(**dict(zip(P, p.T, strict=True)))
        one = Calibration(temperature=temperature)
        return build_record(tempered, calibration=one, scoring=Scoring(0))

    worse = told(6.0)
    assert any("temperature 6, fitted on validation, makes" in w for w in worse["warnings"])
    before, after = worse["calibration"]["before"]["nll"], worse["calibration"]["nll"]
    assert any(f"NLL {before:.3f} to {after:.3f}" in w for w in worse["warnings"])
    assert any("end of the range" in w for w in told(10.0)["warnings"])
    plain = told(1.0)
    assert not any("temperature" in w for w in plain["warnings"])
    assert "support no other" in plain["calibration"]["temperature_note"]


def test_a_probability_that_was_rounded_to_nothing_costs_what_it_may_have_been():
    rows = table(1).head(1).assign(grade=4, p0=1.0, p1=0.0, p2=0.0, p3=0.0, p4=0.0, predicted=0)
    found = build_record(rows, scoring=Scoring(0), calibration=Calibration())["calibration"]
    assert found["nll"] == pytest.approx(-np.log(5e-7))
    assert found["before"]["nll"] == pytest.approx(found["nll"], abs=1e-5)


def test_intervals_are_of_patients_repeat_themselves_and_ignore_the_order_of_rows():
    rows = table(60)
    record = build_record(rows, scoring=Scoring(300))
    again = build_record(rows.sample(frac=1, random_state=0), scoring=Scoring(300))
    assert record["qwk"] == again["qwk"]
    assert record["referable"]["auc"]["ci95"] == pytest.approx(again["referable"]["auc"]["ci95"])
    other = build_record(rows, scoring=Scoring(300, 1))
    assert record["accuracy"]["ci95"] != other["accuracy"]["ci95"]
    assert record["qwk"] == other["qwk"]  # which no draw is asked for
    agreeing = rows.iloc[::2].reset_index(drop=True)  # every patient's picture twice
    twice = pd.concat([agreeing, agreeing.assign(path="again-" + agreeing["path"])])
    assert (
        build_record(twice, scoring=Scoring(300))["qwk"]
        == build_record(agreeing, scoring=Scoring(300))["qwk"]
    )


def test_without_patients_images_are_drawn_and_it_is_said():
    rows = table(60)
    unknown = build_record(rows.assign(patient=None), scoring=Scoring(300))
    assert unknown["patients"] is None
    assert unknown["bootstrap"]["unit"] == "image"
    assert any("no patient is known" in w for w in unknown["warnings"])
    told = build_record(rows, scoring=Scoring(0))["warnings"]
    assert not any("no patient" in w or "patients are few" in w for w in told)
    some = rows.assign(patient=rows["patient"].where(rows.index >= 10))
    partly = build_record(some, scoring=Scoring(0))
    assert partly["patients"] == 55
    assert any("10 images have no patient" in w for w in partly["warnings"])
    assert any(
        "10 patients are few" in w for w in build_record(table(10), scoring=Scoring(0))["warnings"]
    )


# --- what is undefined


def test_one_image():
    record = plain(build_record(table(1).head(1), scoring=Scoring(50)))
    assert record["accuracy"]["value"] in (0, 1)
    assert record["qwk"] == {"value": None, "ci95": None}
    assert record["referable"]["auc"] == {"value": None, "ci95": None}
    assert all(row["auc"] is None for row in record["per_grade"])


def test_one_class_absent():
    rows = table(60)
    rows = rows[rows["grade"] < 2]
    record = plain(build_record(rows, scoring=Scoring(100)))
    assert record["referable"]["auc"] == {"value": None, "ci95": None}
    assert record["referable"]["sensitivity"] == {"value": None, "ci95": None}
    assert record["referable"]["specificity"]["value"] is not None
    assert record["per_grade"][4]["recall"] is None is record["per_grade"][4]["auc"]
    assert record["qwk"]["value"] is not None
    assert any("no image of grade 2, 3, 4" in w for w in record["warnings"])


def test_always_the_same_prediction_and_tied_scores():
    rows = table(60).assign(p0=0.6, p1=0.1, p2=0.1, p3=0.1, p4=0.1, predicted=0)
    record = plain(build_record(rows, scoring=Scoring(100)))
    assert record["qwk"]["value"] == 0
    assert record["referable"]["auc"]["value"] == 0.5
    assert record["per_grade"][0]["precision"] == record["accuracy"]["value"]
    assert record["per_grade"][1]["precision"] is None
    assert record["per_grade"][1]["f1"] == 0
    assert any("every image was called grade 0" in w for w in record["warnings"])


def test_guesses_are_called_guesses():
    rows = table(60)
    guesses = rows.assign(predicted=np.random.default_rng(0).permutation(rows["predicted"]))
    said = [
        any("guessing" in w for w in build_record(r, scoring=Scoring(100))["warnings"])
        for r in (guesses, rows)
    ]
    assert said == [True, False]


def test_never_a_mistake_is_not_certainty():
    rows = table(20)
    perfect = rows.assign(
        **dict(zip(P, np.eye(5)[rows["grade"]].T, strict=True)), predicted=rows["grade"]
    )
    record = plain(build_record(perfect, scoring=Scoring(100)))
    assert record["accuracy"] == {"value": 1, "ci95": [pytest.approx(0.025 ** (1 / 20)), 1]}
    assert record["qwk"] == {"value": 1, "ci95": None}
    positives = rows.loc[rows["grade"] >= 2, "patient"].nunique()
    assert record["referable"]["sensitivity"]["ci95"][0] == pytest.approx(0.025 ** (1 / positives))


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.one_of(st.none(), st.integers(0, 3))),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=25, deadline=None)
def test_any_small_table_gives_a_plain_record(rows):
    grade, called, patient = (list(column) for column in zip(*rows, strict=True))
    small = pd.DataFrame(
        {
            "path": [str(i) for i in range(len(rows))],
            "grade": grade,
            "patient": [None if p is None else str(p) for p in patient],
            **dict(zip(P, np.eye(5)[called].T, strict=True)),
            "gradable": [g != 2 for g in grade],
        }
    )
    record = plain(build_record(small, scoring=Scoring(20, by="patient"), calibration=WARM))
    for _, value, interval in flatten(record):
        assert interval is None or value is not None
        if interval:
            assert interval[0] <= interval[1]
    plain(build_record(binary(small), scoring=Scoring(20)))


# --- thresholds, baselines, verdict


def test_the_threshold_chosen_on_validation_is_used_and_named():
    rows = table(60)
    rule = "sensitivity=0.90"
    point = OperatingPoint(
        Threshold(0.3, rule), Threshold(0.2, rule), source="val of r", data="elsewhere"
    )
    chosen = Calibration(operating_point=point)
    record = build_record(rows, Context(data="here"), calibration=chosen, scoring=Scoring(0))
    for name, cut, columns in (("referable", 0.3, P[2:]), ("sight_threatening", 0.2, P[3:])):
        found, first = record[name], 5 - len(columns)
        called = rows[columns].sum(axis=1) >= cut
        assert (found["threshold"], found["threshold_from"]) == (cut, "val of r")
        assert found["rule"] == "sensitivity=0.90"
        assert found["sensitivity"]["value"] == called[rows["grade"] >= first].mean()
    referable_only = build_record(
        rows,
        calibration=Calibration(
            operating_point=OperatingPoint(Threshold(0.3, "mine"), source="me")
        ),
        scoring=Scoring(0),
    )
    assert referable_only["sight_threatening"]["threshold"] == 0.5
    assert "nothing was chosen" in referable_only["sight_threatening"]["threshold_from"]
    assert any("chosen on other data (elsewhere)" in w for w in record["warnings"])
    stayed = build_record(rows, Context(data="elsewhere"), calibration=chosen, scoring=Scoring(0))
    assert not any("other data" in w for w in stayed["warnings"])
    assert any("at 0.5" in w for w in build_record(rows, scoring=Scoring(0))["warnings"])


def test_a_network_is_set_against_the_fellow_eye_on_the_same_patients():
    """The verdict is of the paired difference: an interval of the network alone, held against the
    baseline as if that were known, says nothing of the two together."""
    rows = table(80)
    rng = np.random.default_rng(3)
    copied = np.where(rng.random(160) < 0.4, rng.integers(0, 5, 160), rows["predicted"])
    copies = pd.DataFrame(
        {"path": rows["path"], "grade": rows["grade"], "majority": 0, "fellow_eye": copied,
         "copied": True}
    )  # fmt: skip
    pair = reference.cohen_kappa_score(rows["grade"], copied, weights="quadratic")
    baselines = {
        "majority": {"accuracy": 0.4, "qwk": 0.0},
        "fellow_eye": {"accuracy": 0.5, "qwk": pair},
    }
    shuffled = copies.sample(frac=1, random_state=1)
    context = Context(baselines=baselines, copies=shuffled, leaks={"fellow_eye_in_train": 96})
    record = plain(build_record(rows, context, scoring=Scoring(500)))
    ((alone),) = compare([("ours", rows), ("theirs", rows.assign(predicted=copied))], bootstrap=500)
    found = record["baselines"]["fellow_eye"]["difference"]
    assert found["qwk"]["value"] == pytest.approx(record["qwk"]["value"] - pair)
    assert found["qwk"]["ci95"] == pytest.approx(alone["qwk"]["ci95"])
    assert found["qwk"]["ci95"][0] > 0
    assert doubt_leaks(record) is None
    assert record["qwk"]["ci95"][0] < pair + found["qwk"]["value"]
    majority = record["baselines"]["majority"]["difference"]["accuracy"]
    assert majority["value"] == pytest.approx(
        record["accuracy"]["value"] - (rows["grade"] == 0).mean()
    )
    told = {name: value for name, value, _ in flatten(record)}
    assert told["baseline.fellow_eye.less.qwk"] == found["qwk"]["value"]
    fewer = build_record(
        rows, Context(baselines=baselines, copies=copies.head(9)), scoring=Scoring(0)
    )
    assert fewer["baselines"]["fellow_eye"]["difference"] is None


def test_without_baselines_the_majority_is_of_these_images():
    rows = table(60)
    share = rows["grade"].value_counts(normalize=True).max()
    majority = build_record(rows, scoring=Scoring(0))["baselines"]["majority"]
    assert majority == {"accuracy": pytest.approx(share), "qwk": 0, "difference": None}


# --- subgroups and ungradable images


def test_subgroups_are_scored_like_tables_of_their_own():
    rows = table(60).assign(camera=lambda t: np.where(t.index < 50, "Topcon", None))
    groups = build_record(rows, scoring=Scoring(50, by="camera"))["subgroups"]
    assert groups["column"] == "camera"
    assert [(g["value"], g["n"]) for g in groups["groups"]] == [("Topcon", 50), (None, 70)]
    alone = build_record(rows.head(50), scoring=Scoring(2000))
    groups = build_record(rows, scoring=Scoring(2000, by="camera"))["subgroups"]
    first, second = groups["groups"]
    for name in HEADLINE:
        assert first[name]["value"] == alone[name]["value"]
        assert first[name]["ci95"] == pytest.approx(alone[name]["ci95"], abs=0.03)
    assert first["referable"]["auc"]["value"] == alone["referable"]["auc"]["value"]
    assert groups["reference"] is None is second["difference"]
    for name in HEADLINE:
        found = first["difference"][name]
        assert found["value"] == pytest.approx(first[name]["value"] - second[name]["value"])
        low, high = found["ci95"]
        # no patient is in both: the halves add by Pythagoras
        half = np.hypot(*(g[name]["ci95"][1] - g[name]["ci95"][0] for g in (first, second))) / 2
        assert (high - low) / 2 == pytest.approx(half, rel=0.12)


def test_the_difference_of_the_two_eyes_knows_that_they_are_of_the_same_patients():
    """Both eyes are right or wrong together here: less than half as wide as of two cameras."""
    rows = table(80)
    twins = rows.iloc[np.repeat(np.arange(0, 160, 2), 2)].assign(path=rows["path"].to_numpy())
    twins["eye"] = rows["eye"].to_numpy()
    record = build_record(twins, scoring=Scoring(200, by="eye"))
    left, right = record["subgroups"]["groups"]
    assert right["difference"]["qwk"]["value"] == 0
    low, high = right["difference"]["qwk"]["ci95"]
    apart = np.sqrt(2) * (left["qwk"]["ci95"][1] - left["qwk"]["ci95"][0])
    assert high - low < apart / 2


def test_fewer_than_ten_patients_of_a_grade_are_told_in_groups_too():
    rows = table(200)
    rare = rows[(rows["grade"] != 4) | (rows.index >= 350)]
    n = rare.loc[rare["grade"] == 4, "patient"].nunique()
    assert 0 < n < 10
    record = build_record(rare, scoring=Scoring(0))
    assert any(f"few patients: {n} with grade 4" in w for w in record["warnings"])
    assert not any("few patients" in w for w in build_record(rows, scoring=Scoring(0))["warnings"])
    sites = rows.assign(site=np.where(rows.index < 390, "big", "small"))
    grouped = build_record(sites, scoring=Scoring(0, by="site"))
    big, small = grouped["subgroups"]["groups"]
    assert big["few"] == []
    assert small["few"]
    assert any(w.startswith("by site: small have fewer than 10") for w in grouped["warnings"])


def test_equal_decimals_are_equal_scores():
    """.3 + .2 + .1, .1 + .3 + .2 and .6 are one score to whoever reads the file: a tie in the AUC,
    and no threshold between them."""
    parts = [(0.3, 0.2, 0.1), (0.1, 0.3, 0.2), (0.6, 0.0, 0.0), (0.2, 0.1, 0.3)]
    assert len({a + b + c for a, b, c in parts}) > 1  # in floats they differ
    p = np.array([[0.4, 0.0, *part] for part in parts * 2])
    grade = np.array([0, 2, 0, 2, 2, 0, 2, 0])
    rows = pd.DataFrame({"path": [str(i) for i in range(8)], "grade": grade})
    rows[P] = p
    record = build_record(rows, scoring=Scoring(0))
    assert record["referable"]["auc"]["value"] == 0.5
    point = choose_operating_point(grade, p)
    called = build_record(rows, calibration=Calibration(operating_point=point), scoring=Scoring(0))
    assert {called["referable"][rate]["value"] for rate in ("sensitivity", "specificity")} == {0, 1}


def test_a_column_of_many_numbers_is_cut_into_quarters():
    rows = table(50).assign(quality=np.linspace(0, 1, 100), old=range(100))
    rows["site"] = [f"site {i}" for i in range(100)]
    for column in ("quality", "old"):
        groups = build_record(rows, scoring=Scoring(0, by=column))["subgroups"]["groups"]
        assert [g["n"] for g in groups] == [25] * 4
    with pytest.raises(UsageError, match="'site' has 100 values"):
        build_record(rows, scoring=Scoring(0, by="site"))
    with pytest.raises(UsageError, match=r"no column 'age'.*there are .*eye"):
        build_record(rows, scoring=Scoring(0, by="age"))


def test_ungradable_images_are_counted_and_figures_given_without_them():
    rows = table(60).assign(gradable=lambda t: t.index % 10 != 0)
    record = build_record(rows, scoring=Scoring(50))
    assert record["ungradable"]["n"] == 12
    assert record["ungradable"]["share"] == pytest.approx(0.1)
    alone = build_record(rows[rows["gradable"]], scoring=Scoring(50))
    assert record["ungradable"]["without"]["qwk"] == alone["qwk"] != record["qwk"]
    assert build_record(table(5), scoring=Scoring(0))["ungradable"] is None
    none = build_record(table(5).assign(gradable=0), scoring=Scoring(0))["ungradable"]
    assert none == {"n": 10, "share": 1.0, "without": None}


def test_a_diverged_network_is_named_not_scored():
    with pytest.raises(UsageError, match="predictions, line 5, column p2: nothing is not a prob"):
        build_record(table(5).assign(p2=[0.1, 0.1, 0.1, np.nan] + [0.1] * 6))
