"""A run's record: from its prediction files, from its network, and against other runs."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from dr_cli.cli.eval import command
from dr_cli.errors import UsageError
from dr_cli.grades import Calibration, OperatingPoint, Threshold
from dr_cli.network.grader import Grader
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.crop import Preprocessing
from dr_cli.runs import PREDICTIONS, DataRecord, ModelRecord, Run, RunConfig
from dr_cli.scoring.calibration import choose_operating_point, fit_thresholds
from dr_cli.scoring.flat import flatten
from dr_cli.scoring.intervals import REPLICATES
from dr_cli.scoring.of_run import Rules, choose_split, compare_runs, evaluate, recalibrate
from dr_cli.training import crossval
from tests.builders.photographs import course
from tests.builders.predictions import P, table

CHOSEN = Calibration(None, 1.5, OperatingPoint(Threshold(0.4, "youden"), Threshold(0.3, "youden")))


def write_run(folder: Path, seed: int = 0) -> Run:
    """A finished run of 30 validation and 40 test images, with a network that learnt nothing."""
    folder.mkdir()
    run = Run(folder)
    torch.manual_seed(seed)
    record = ModelRecord("resnet18", Preprocessing(size=32).to_dict(), CHOSEN, 1)
    run.save_model(build_resnet("resnet18").state_dict(), record)
    data = DataRecord("/data", "/data", "course", {}, "0" * 64, {})
    run.write_config(
        RunConfig({"val": "0.15"}, None, record.preprocessing, 1, 1, data, {}, "cpu", "fp32", 1)
    )
    labels = []
    for split, patients in (("val", 15), ("test", 20)):
        # the same images in every run; what it said of them differs
        rows = table(patients).assign(path=lambda rows, s=split: s + "/" + rows["path"], gradable=1)
        said = table(patients, seed)
        rows[[*P, "predicted"]] = said[[*P, "predicted"]]
        run.write_table(f"predictions-{split}.csv", PREDICTIONS, rows)
        labels.append(rows.assign(split=split, reason=None, camera=np.tile(["a", "b"], patients)))
    columns = ("path", "grade", "patient", "eye", "split", "reason", "camera")
    run.write_table("splits.csv", columns, pd.concat(labels))
    run["summary.json"].write_text(json.dumps({"test": {"n": 40}}))
    return run


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    root = tmp_path_factory.mktemp("runs")
    return [write_run(root / name, seed) for seed, name in enumerate(("first", "second"))]


def test_a_run_is_evaluated_on_its_own_predictions_at_its_own_thresholds(runs):
    run = runs[0]
    record = evaluate(run.folder, bootstrap=20)
    assert record == evaluate(str(run.folder), split="test", bootstrap=20)
    assert (record["run"], record["data"], record["split"]) == ("first", "/data", "test")
    assert record["n"] == 40
    assert record["referable"]["threshold"] == 0.4
    assert record["referable"]["threshold_from"] == "val of first"
    assert record["calibration"]["temperature"] == 1.5
    assert record["leaks"]["fellow_eye_in_train"] == 30  # 15 of 20 patients are in val, too
    assert record["baselines"]["fellow_eye"] is None  # no train split to take a majority from
    val, everything = (evaluate(run, split=split, bootstrap=0) for split in ("val", "all"))
    assert (val["n"], everything["n"]) == (30, 70)
    assert val["leaks"]["fellow_eye_in_train"] == 0
    assert "optimistic" in val["warnings"][0]
    assert "optimistic" in everything["warnings"][0]


def test_figures_by_a_column_that_only_the_labels_have(runs):
    groups = evaluate(runs[0], by="camera", bootstrap=0)["subgroups"]["groups"]
    assert [(group["value"], group["n"]) for group in groups] == [("a", 20), ("b", 20)]


def test_a_split_that_was_not_predicted_is_refused(runs, tmp_path):
    assert choose_split(runs[0]) == "test"
    with pytest.raises(UsageError, match="keeps no predictions of its training split"):
        evaluate(runs[0], split="train")
    with pytest.raises(UsageError, match=r"has no summary\.json"):
        evaluate(tmp_path)
    one = write_run(tmp_path / "one")
    one["predictions-test.csv"].unlink()
    assert choose_split(one) == "val"
    with pytest.raises(UsageError, match="has no test split: it has val"):
        evaluate(one, split="test")
    with pytest.raises(UsageError, match="has no test split: it has val"):
        compare_runs([runs[0], one], "test")


def test_other_rules_choose_anew_on_validation(runs):
    val = runs[0].predictions("val")
    grade, p = val["grade"].to_numpy(), val[P].to_numpy()
    assert recalibrate(runs[0]).cuts is None
    asked = Rules("thresholds", "sensitivity=0.90")
    chosen = recalibrate(runs[0], asked)
    assert chosen.cuts == fit_thresholds(grade, p)
    point = choose_operating_point(grade, p, "sensitivity=0.90")
    assert chosen.operating_point == replace(point, source="val of first", data="/data")
    record = evaluate(runs[0], rules=asked, bootstrap=0)
    called = chosen.decide(runs[0].predictions("test")[P].to_numpy())
    assert np.sum(record["confusion"], axis=0).tolist() == np.bincount(called, minlength=5).tolist()


def test_runs_are_compared_each_at_its_own_threshold_by_folder_or_by_name(runs):
    (pair,) = compare_runs(runs, "test", bootstrap=20)
    assert (pair["a"], pair["b"]) == tuple(str(run.folder) for run in runs)
    (named,) = compare_runs(runs, "test", bootstrap=20, names=("ours", "theirs"))
    assert (named["a"], named["b"]) == ("ours", "theirs")
    assert named["mcnemar_referable"] == pair["mcnemar_referable"]
    (strict,) = compare_runs(runs, "test", Rules(operating_point="specificity=0.95"), 20)
    assert strict["mcnemar_referable"] != pair["mcnemar_referable"]


def test_on_photographs_a_run_grades_as_predict_does(runs, tmp_path):
    data = course(tmp_path / "data", train=4, test=6)
    record = evaluate(runs[0], data, bootstrap=0, device="cpu", precision="fp32")
    assert (record["data"], record["split"], record["n"]) == (str(data), "test", 6)
    assert record["leaks"] is None  # not the run's own data: nobody knows
    paths = sorted((data / "test").glob("*.jpeg"))
    graded = list(Grader.load(runs[0].folder, device="cpu", precision="fp32").predict(paths))
    said = np.bincount([one["predicted"] for one in graded], minlength=5)
    assert np.sum(record["confusion"], axis=0).tolist() == said.tolist()
    likely = record["calibration"]["curve"]
    mean = sum(b["n"] * b["confidence"] for b in likely if b["n"]) / 6
    assert mean == pytest.approx(np.mean([max(one["probabilities"]) for one in graded]), abs=2e-6)
    (data / "test" / paths[0].name).write_bytes(b"no picture")
    assert evaluate(runs[0], data, bootstrap=0, device="cpu")["failed"] == 1
    with pytest.raises(UsageError, match="has no val split"):
        evaluate(runs[0], data, "val", device="cpu")


# --- what stands beside the figures


def place(run: Run, **changed) -> Run:
    """The run with other columns in its splits.csv."""
    labels = run.splits().assign(**changed)
    run.write_table("splits.csv", list(labels), labels)
    return run


def alone(run: Run) -> Run:
    """The run whose test patients are nobody else's."""
    labels = run.splits()
    return place(run, patient=labels["split"] + labels["patient"])


def test_a_double_across_splits_is_counted_and_never_a_false_0(tmp_path):
    run = alone(write_run(tmp_path / "run"))
    assert evaluate(run, bootstrap=0)["leaks"] == {
        "fellow_eye_in_train": 0, "patient_in_train": 0, "duplicates_across_splits": None,
    }  # fmt: skip
    place(run, duplicates=[1, *[None] * 30, 2, 2, 1, *[None] * 36])  # 3 of test, 1 of val
    assert evaluate(run, bootstrap=0)["leaks"]["duplicates_across_splits"] == 1
    place(run, duplicates=None)
    assert evaluate(run, bootstrap=0)["leaks"]["duplicates_across_splits"] == 0


def test_figures_of_the_images_that_do_not_leak_stand_beside_the_others(tmp_path):
    run = write_run(tmp_path / "run")
    record = evaluate(run, bootstrap=20)
    clean = record["without_leaks"]
    assert (record["n"], clean["n"], clean["patients"]) == (40, 10, 5)
    table = run.predictions("test")
    rows = table[table["patient"].isin([f"p{k}" for k in range(15, 20)])]
    assert clean["accuracy"]["value"] == (rows["grade"] == rows["predicted"]).mean()
    told = {name: value for name, value, _ in flatten(record)}
    assert told["without_leaks.n"] == 10
    assert told["without_leaks.qwk"] == clean["qwk"]["value"]
    assert "without_leaks.referable.auc" in told
    alone(run)
    place(run, duplicates=[1, *[None] * 29, 1, *[None] * 39])
    assert evaluate(run, bootstrap=0)["without_leaks"]["n"] == 39
    place(run, duplicates=None)
    assert evaluate(run, bootstrap=0)["without_leaks"] is None  # nobody leaks
    place(run, patient="one")
    assert evaluate(run, bootstrap=0)["without_leaks"] == {"n": 0, "patients": None}


def test_validation_that_leaks_is_told_where_there_is_a_test_split(tmp_path):
    run = alone(write_run(tmp_path / "run"))
    val = run.splits()["split"] == "val"
    place(run, split=np.where(val & (run.splits().index % 2 == 0), "train", run.splits()["split"]))
    for split in ("val", "test"):
        said = evaluate(run, split=split, bootstrap=0)["warnings"]
        assert any(w.startswith("15 of 15 validation images show a patient") for w in said), split
    place(run, patient=None)
    said = evaluate(run, bootstrap=0)["warnings"]
    assert not any("validation images" in w for w in said)


def test_failed_is_of_the_split_that_is_asked(tmp_path):
    run = write_run(tmp_path / "run")
    labels = run.splits()
    lost = labels.head(4).assign(
        split=None,
        reason=["image missing", "unreadable: cut short", "unreadable: cut short", "named twice"],
        left_out_of=["train", "test", "val", "test"],
        path=["a", "b", "c", "d"],
    )
    labels = pd.concat([labels.assign(left_out_of=None), lost])
    run.write_table("splits.csv", list(labels), labels)
    failed = {s: evaluate(run, split=s, bootstrap=0)["failed"] for s in ("val", "test", "all")}
    assert failed == {"val": 1, "test": 1, "all": 2}


def test_a_start_that_has_seen_the_images_stands_beside_their_figures(tmp_path):
    run = write_run(tmp_path / "run")
    told = "was trained or chosen on 7 of these images"
    assert not any(told in w for w in evaluate(run, bootstrap=0)["warnings"])
    run.write_config(replace(run.config(), start={"test": 7, "val": 0}))
    assert any(told in w for w in evaluate(run, bootstrap=0)["warnings"])
    assert not any(
        "optimistic" in w and told in w for w in evaluate(run, split="val", bootstrap=0)["warnings"]
    )


def test_a_run_picked_on_test_says_so_in_every_way(tmp_path):
    run = write_run(tmp_path / "run")
    run.write_config(replace(run.config(), options={"val": "test"}))
    run["predictions-val.csv"].write_bytes(run["predictions-test.csv"].read_bytes())
    record = evaluate(run, bootstrap=0)
    assert record["referable"]["threshold_from"] == "test of run"
    assert any(
        "temperature and thresholds were chosen on these test" in w for w in record["warnings"]
    )
    everything = evaluate(run, split="all", bootstrap=0)
    assert everything["n"] == 40
    assert any("chosen on these test" in w for w in everything["warnings"])


def test_the_command_line_draws_as_many_replicates_as_the_library():
    """The number stands there, too, because --help must not wait for numpy."""
    assert inspect.signature(command).parameters["bootstrap"].default == REPLICATES


# --- a cross-validation


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three folds of 20 patients, each with its own validation and thresholds, and their pool."""
    run = Run(tmp_path_factory.mktemp("cv") / "cv")
    run.folder.mkdir()
    everyone = table(60).assign(gradable=1)
    folds = []
    for k in range(3):
        fold = write_run(run.folder / f"fold-{k + 1}", seed=k)
        held = everyone["patient"].isin([f"p{i}" for i in range(20 * k, 20 * k + 20)])
        fold.write_table("predictions-test.csv", PREDICTIONS, everyone[held])
        others = everyone[~held]
        fold.write_table("predictions-val.csv", PREDICTIONS, others.iloc[k :: 2 + k])
        split = np.where(held, "test", np.where(everyone.index % 3 == k, "val", "train"))
        labels = everyone.assign(split=split, reason=None)
        fold.write_table(
            "splits.csv", ("path", "grade", "patient", "eye", "split", "reason"), labels
        )
        own = replace(CHOSEN, operating_point=OperatingPoint(Threshold(0.2 + 0.2 * k, "youden")))
        record = ModelRecord("resnet18", Preprocessing(size=32).to_dict(), own, 1)
        fold.save_model(build_resnet("resnet18").state_dict(), record)
        folds.append(fold)
    run.write_config(folds[0].config())
    crossval._pool_splits(run, folds)
    tables = [fold.predictions("test") for fold in folds]
    run.write_table("predictions-test.csv", PREDICTIONS, pd.concat(tables))
    run["summary.json"].write_text(json.dumps({"test": {"n": 120}}))
    return run


def test_each_image_of_a_cross_validation_is_decided_by_its_own_fold(folded):
    """The mean of the folds' thresholds was chosen on images that it would then judge."""
    record = evaluate(folded, bootstrap=0)
    folds = [Run(folder) for folder in folded.networks()]
    hits = total = 0
    for fold, threshold in zip(folds, (0.2, 0.4, 0.6), strict=True):
        rows = fold.predictions("test")
        truth, score = rows["grade"] >= 2, rows[P[2:]].sum(axis=1).round(9)
        hits, total = hits + (truth & (score >= threshold)).sum(), total + truth.sum()
    assert record["referable"]["sensitivity"]["value"] == hits / total
    assert record["referable"]["threshold"] == pytest.approx(0.4)  # for new photographs
    assert "each fold of cv" in record["referable"]["threshold_from"]


def test_a_cross_validations_operating_point_is_chosen_fold_by_fold(folded):
    rules = Rules(operating_point="sensitivity=0.90")
    record = evaluate(folded, rules=rules, bootstrap=0)
    chosen = []
    for each, fold in zip(record["folds"]["each"], map(Run, folded.networks()), strict=True):
        val = fold.predictions("val")
        point = choose_operating_point(val["grade"], val[P].to_numpy(), "sensitivity=0.90")
        assert each["thresholds"]["referable"] == point.referable.value
        alone = evaluate(fold, rules=rules, bootstrap=0)
        assert {"accuracy", "qwk", "referable.sensitivity"} <= set(each["figures"])
        for name, value in each["figures"].items():
            assert value == found(alone, name)["value"], name
        chosen.append(point.referable.value)
    assert record["referable"]["threshold"] == pytest.approx(np.mean(chosen))
    kappas = [each["figures"]["qwk"] for each in record["folds"]["each"]]
    assert record["folds"]["mean"]["qwk"] == pytest.approx(np.mean(kappas))
    assert record["folds"]["sd"]["qwk"] == pytest.approx(np.std(kappas, ddof=1))
    assert evaluate(Run(folded["fold-1"]), bootstrap=0)["folds"] is None


def found(record, name):
    first, _, second = name.partition(".")
    return record[first][second] if second else record[first]


def test_a_cross_validation_has_the_baselines_of_its_folds(folded):
    """Each fold's majority is of its own train split; pooled splits have no train at all."""
    record = evaluate(folded, bootstrap=100)
    right = total = 0
    for folder in folded.networks():
        rows = Run(folder).splits()
        majority = rows.loc[rows["split"] == "train", "grade"].mode().min()
        held = rows.loc[rows["split"] == "test", "grade"]
        right, total = right + (held == majority).sum(), total + len(held)
    majority = record["baselines"]["majority"]
    assert majority["accuracy"] == pytest.approx(right / total)
    assert majority["difference"]["accuracy"]["ci95"] is not None
    assert record["baselines"]["fellow_eye"] is None  # folds hold patients apart
