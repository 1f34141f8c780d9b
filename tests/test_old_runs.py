"""Runs of earlier versions are read by all commands, and those of a later one refused in a line."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dr_cli.network.resnet import build_resnet
from dr_cli.runs import SCHEMA, Run, read_record
from tests.builders import photographs
from tests.builders.program import dr
from tests.builders.runs import edit

KEPT = sorted(path for path in (Path(__file__).parent / "old_runs").iterdir() if path.is_dir())


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    return photographs.course(tmp_path_factory.mktemp("old") / "clinic", 24, 12, size=48)


@pytest.fixture(scope="module", params=KEPT, ids=lambda path: path.name)
def run(request, clinic, tmp_path_factory) -> Path:
    """The run in its place, with weights that are random and metadata that are its own."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    shutil.copytree(request.param, folder, ignore=shutil.ignore_patterns("unfinished"))
    told = json.loads((folder / "weights.json").read_text(encoding="utf-8"))["__metadata__"]
    torch.manual_seed(0)
    tensors = build_resnet(json.loads(told["arch"])).state_dict()
    save_file(tensors, folder / "model.safetensors", told)
    put(folder, clinic)
    return folder


def put(run: Path, clinic: Path) -> None:
    """Its photographs are there."""
    with edit(run / "config.json") as config:
        for place in ("root", "source"):
            config["data"][place] = str(clinic)


def make_state(kept: Path) -> dict:
    """What last.pt held, with other weights in it."""
    state = json.loads(kept.read_text(encoding="utf-8"))
    torch.manual_seed(0)
    network = build_resnet("resnet18")
    assert list(network.state_dict()) == state["network"]
    moments = [
        {
            name: torch.zeros_like(value) if number is None else torch.tensor(number)
            for name, number in state["optimizer"]["state"].items()
        }
        for value in sorted(network.parameters(), key=lambda value: value.ndim < 2)
    ]  # decayed ones first
    state["network"] = network.state_dict()
    state["optimizer"]["state"] = dict(enumerate(moments))
    return state


def test_there_are_some():
    assert KEPT


def test_its_figures_are_those_that_it_was_left_with(run):
    done = dr("eval", run, "--format", "json", "--bootstrap", 0)
    assert done.exit_code == 0, done.output
    now = json.loads(done.stdout)
    then = json.loads((run / "summary.json").read_text(encoding="utf-8"))["test"]
    for name in ("accuracy", "qwk", "balanced_accuracy", "mean_absolute_error"):
        assert now[name]["value"] == pytest.approx(then[name]["value"]), name
    assert now["confusion"] == then["confusion"]
    assert now["referable"]["threshold"] == then["referable"]["threshold"]
    assert now["calibration"]["temperature"] == then["calibration"]["temperature"]


def test_its_network_grades_its_own_data_again(run, clinic):
    ask = ("--format", "json", "--bootstrap", 0, "--device", "cpu")
    done = dr("eval", run, clinic, *ask)
    assert done.exit_code == 0, done.output
    now = json.loads(done.stdout)
    assert (now["split"], now["n"], now["failed"]) == ("test", 12, 0)  # its splits are kept
    done = dr("predict", clinic / "test", "--run", run, "--format", "json", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)) == 12


def test_it_is_reported_and_its_data_are_known_again(run):
    done = dr("report", run, "--quiet")
    assert done.exit_code == 0, done.output
    assert (run / "report.html").stat().st_size > 50_000
    done = dr("train", "--resume", run)
    assert done.exit_code == 2
    assert "is finished, and has no last.pt" in done.stderr


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.name)
def test_one_that_was_killed_in_its_second_epoch_is_gone_on_with(kept, clinic, tmp_path):
    """What its first epoch and its half of the second found is kept."""
    run = Path(shutil.copytree(kept / "unfinished", tmp_path / "run"))
    put(run, clinic)
    torch.save(make_state(run / "state.json"), run / "last.pt")
    first = (run / "metrics.csv").read_text(encoding="utf-8")
    done = dr("train", "--resume", run)
    assert done.exit_code == 0, done.output
    assert f"going on with {run} after 1 epoch" in done.stderr
    metrics = (run / "metrics.csv").read_text(encoding="utf-8")
    assert metrics.startswith(first)
    assert len(metrics.splitlines()) == 3
    assert json.loads((run / "summary.json").read_text(encoding="utf-8"))["test"]["n"] == 12
    assert read_record(run).preprocessing["field"] == "runs-1"  # its pixels stay what they were
    assert (
        Run(run).config().preprocessing
        == json.loads((kept / "unfinished" / "config.json").read_text(encoding="utf-8"))[
            "preprocessing"
        ]
    )


@pytest.mark.parametrize("schema", [SCHEMA + 1, 1000])
def test_a_newer_one_is_refused_in_a_line(run, tmp_path, schema):
    newer = tmp_path / "newer"
    newer.mkdir()
    for path in run.glob("*.*"):
        (newer / path.name).symlink_to(path)
    (newer / "config.json").unlink()
    shutil.copy(run / "config.json", newer / "config.json")
    with edit(newer / "config.json") as config:
        config["schema"] = schema
    for ask in (("eval", newer), ("report", newer), ("train", "--resume", newer)):
        done = dr(*ask)
        assert done.exit_code == 2, done.output
        assert f"was written by a newer dr (schema {schema})" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
