"""A network of drawn eyes never grades a person's photograph unannounced."""

import json
import shutil
from pathlib import Path

import pytest

from dr_cli import runs
from dr_cli.network.grader import Grader
from dr_cli.sample import drawn_set
from tests.builders import photographs
from tests.builders.program import dr


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with a run on drawn eyes in `runs`, those eyes, and a photograph."""
    folder = tmp_path_factory.mktemp("drawn")
    eyes = drawn_set.ensure(folder / "cache", images=30, size=64, workers=1)
    photographs.picture(2).save(folder / "photograph.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DR_RUNS", str(folder / "runs"))
        done = dr("train", eyes, "--epochs", 1, "--size", 32, "--name", "drawn", "--quiet")
    assert done.exit_code == 0, done.output
    return folder, eyes


@pytest.fixture
def own_runs(drawn, tmp_path, monkeypatch):
    """A copy of the runs, which is where predict looks."""
    shutil.copytree(drawn[0] / "runs", tmp_path / "runs")
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def test_training_says_what_spoils_its_figures(drawn):
    run = runs.Run(drawn[0] / "runs" / "drawn")
    log = run["log.txt"].read_text(encoding="utf-8").splitlines()
    said = [line.removeprefix("warning: ") for line in log if line.startswith("warning: ")]
    expected = run.summary()["test"]["warnings"]
    assert any("drawn by a program" in text for text in expected)
    assert said[-len(expected) :] == expected


def test_predict_stops_where_only_drawn_eyes_were_seen(drawn, own_runs):
    folder, eyes = drawn
    done = dr("predict", folder / "photograph.png")
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.strip().splitlines()
    assert "has seen drawn eyes alone" in line
    assert "--run" in line
    assert "dr train" in line
    done = dr("predict", next((eyes / "images").iterdir()), "--format", "jsonl")
    assert done.exit_code == 0, done.output
    assert "seen drawn eyes" not in done.stderr
    assert json.loads(done.stdout)["trained_on"] == "drawn eyes"


def test_a_drawn_network_that_is_named_warns_once_and_grades(drawn, own_runs):
    photograph = drawn[0] / "photograph.png"
    for source in (own_runs / "drawn", own_runs / "drawn" / runs.MODEL):
        done = dr("predict", photograph, photograph, "--run", source, "--format", "json")
        assert done.exit_code == 0, done.output
        assert done.stderr.count("warning:") == 1
        assert "has seen drawn eyes alone" in done.stderr
        assert [r["trained_on"] for r in json.loads(done.stdout)] == ["drawn eyes"] * 2


def test_a_run_on_photographs_is_preferred_however_old(drawn, own_runs):
    data = photographs.course(own_runs.parent / "clinic", train=20, test=10)
    done = dr("train", data, "--epochs", 1, "--size", 32, "--name", "real", "--quiet")
    assert done.exit_code == 0, done.output
    (own_runs / "drawn" / "summary.json").touch()  # the newest
    done = dr("predict", drawn[0] / "photograph.png", "--format", "jsonl")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["trained_on"] == "clinic"
    assert f"graded by {own_runs / 'real'}" in done.stderr


def test_weights_of_before_are_known_by_their_run(own_runs):
    run = runs.Run(own_runs / "drawn")
    tensors, record = runs.read_model(run.folder)
    assert record.trained_on == run.config().data.trained_on
    assert record.trained_on.drawn
    older = runs.ModelRecord(record.arch, record.preprocessing, record.calibration, record.epoch)
    run.save_model(tensors, older)
    config = run.config().to_record()
    del config["data"]["drawn"]
    (run.folder / "config.json").write_text(json.dumps(config))
    assert runs.read_record(run.folder).trained_on.drawn


def test_eval_and_report_say_it(drawn, own_runs, tmp_path):
    own = json.loads(dr("eval", own_runs / "drawn", "--bootstrap", 0).stdout)["warnings"]
    assert any("drawn by a program" in warning for warning in own)
    data = photographs.course(tmp_path / "clinic", train=10, test=10)
    done = dr("eval", own_runs / "drawn", data, "--bootstrap", 0)
    assert done.exit_code == 0, done.output
    there = json.loads(done.stdout)["warnings"]
    assert any("has seen drawn eyes alone" in warning for warning in there)
    assert "has seen drawn eyes alone" in done.stderr
    told = json.loads(dr("report", own_runs, "--format", "json").stdout)
    assert any("drawn, no photographs" in warning for warning in told["warnings"])
    assert any("drawn" in item["text"] for item in told["card"] if item["title"] == "Data")


def test_a_run_that_calls_all_alike_is_announced(own_runs, drawn):
    run = runs.Run(own_runs / "drawn")
    summary = run.summary()
    summary["test"]["confusion"] = [[6, 0, 0, 0, 0]] + [[1, 0, 0, 0, 0]] * 4
    (run.folder / "summary.json").write_text(json.dumps(summary))
    done = dr("predict", next((drawn[1] / "images").iterdir()), "--run", run.folder)
    assert f"{run.folder} (which called every image of its test grade 0)" in done.stderr
    summary["test"]["confusion"] = [[5, 1, 0, 0, 0]] + [[1, 0, 0, 0, 0]] * 4
    summary["test"]["qwk"] = {"value": 0.05, "ci95": [-0.2, 0.3]}
    (run.folder / "summary.json").write_text(json.dumps(summary))
    done = dr("predict", next((drawn[1] / "images").iterdir()), "--run", run.folder)
    assert "not told apart from always saying one grade" in done.stderr


def test_python_says_it_too(own_runs, drawn):
    grader = Grader.load(own_runs / "drawn")
    assert grader.trained_on == "drawn eyes"
    (record,) = grader.predict(Path(drawn[0] / "photograph.png"))
    assert record["trained_on"] == "drawn eyes"
