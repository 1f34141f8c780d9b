"""--both-eyes, from training to figures."""

import json

import pandas as pd
import pytest

from dr_cli.grades import Fellow
from dr_cli.runs import Run, read_record
from dr_cli.scoring.both_eyes import Pairs
from tests.builders import photographs
from tests.builders.program import dr


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("both")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DR_RUNS", str(folder))
        # brightness tells the grade here
        chosen = ("--illumination", "kept", "--size", 32, "--epochs", 3, "--both-eyes")
        done = dr("train", world / "data", *chosen, "--name", "both")
        assert done.exit_code == 0, done.output
    return folder / "both"


def test_data_and_files_give_the_same_figures(world, run):
    told = json.loads((run / "summary.json").read_text())["test"]
    fresh = json.loads(dr("eval", run, world / "data", "--split", "test").stdout)
    for name in ("confusion", "qwk", "accuracy"):
        assert fresh[name] == told[name]
    # To rounding: in fp32 a photograph's logits depend on the batch it stands in.
    for name in ("value", "ci95"):
        found, expected = (record["referable"]["auc"][name] for record in (fresh, told))
        assert found == pytest.approx(expected, abs=1e-6)
    assert fresh["calibration"]["nll"] == pytest.approx(told["calibration"]["nll"], abs=1e-5)
    assert told["calibration"]["before"] is None or read_record(run).calibration.fellow is None


def test_of_several_seeds_too(world, tmp_path, monkeypatch):
    """Each network's eyes hear each other, then the mean is taken, in files as with data."""
    monkeypatch.setenv("DR_RUNS", str(tmp_path))
    weights = iter([0.8, 0.4])
    fellow = lambda self, *_: Fellow(tuple(map(tuple, self.joint.tolist())), next(weights))  # noqa: E731
    monkeypatch.setattr(Pairs, "fit", fellow)
    chosen = ("--size", 32, "--epochs", 1, "--both-eyes", "--seeds", 2, "--name", "two")
    done = dr("train", world / "data", *chosen)
    assert done.exit_code == 0, done.output
    run = Run(tmp_path / "two")
    fresh = json.loads(dr("eval", run.folder, world / "data", "--split", "test").stdout)
    told = run.summary()["test"]
    assert fresh["confusion"] == told["confusion"]
    assert fresh["calibration"]["nll"] == pytest.approx(told["calibration"]["nll"], abs=1e-5)
    assert run.calibration().fellow.weight == pytest.approx(0.6)  # for the patients of --pair


def test_without_pairs_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("DR_RUNS", str(tmp_path / "runs"))
    data = photographs.table(tmp_path / "data")
    columns = ("--image-column", "photo", "--grade-column", "stage")
    done = dr("train", data, *columns, "--size", 32, "--epochs", 1, "--both-eyes")
    assert done.exit_code == 2
    assert "--both-eyes needs validation patients of whom both eyes are known" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_predictions_are_those_of_eyes_that_heard_each_other(world, run):
    rule = read_record(run).calibration.fellow
    told = pd.read_csv(run / "predictions-test.csv")
    assert (rule is None) == ("each eye is graded by itself" in (run / "log.txt").read_text())
    assert told[[f"p{k}" for k in range(5)]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
