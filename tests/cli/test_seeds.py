"""`dr train --seeds N`: networks on one split, read as their mean."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dr_cli.cli.console import Console
from dr_cli.errors import UsageError
from dr_cli.network.grader import Grader
from dr_cli.runs import Run
from dr_cli.scoring.predictions import PROBABILITIES
from dr_cli.training import crossval
from dr_cli.training.config import TrainConfig
from tests.builders.photographs import course
from tests.builders.program import dr


def _stop_at_second(self, *arguments, seen=[]):  # noqa: B006
    seen.append(arguments)
    if len(seen) == 2:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two seeds from 3 on; the second was cut off, then gone on with."""
    root = tmp_path_factory.mktemp("seeds")
    data = course(root / "data", train=40, test=20)
    chosen = ["--seeds", 2, "--seed", 3, "--epochs", 1, "--size", 32, "--name", "two"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DR_RUNS", str(root / "runs"))
        patch.setattr(Console, "epoch", _stop_at_second)
        assert dr("train", data, *chosen, "--decision", "thresholds").exit_code == 130
    run = Run(root / "runs" / "two")
    assert not run.finished
    done = dr("train", "--resume", run.folder)
    assert done.exit_code == 0, done.output
    assert "one network" in done.stderr
    return run


def test_seeds_share_their_split_and_nothing_else(seeds):
    one, other = map(Run, seeds.networks())
    assert (one.name, other.name) == ("seed-3", "seed-4")
    assert one["splits.csv"].read_bytes() == other["splits.csv"].read_bytes()
    assert seeds["splits.csv"].read_bytes() == one["splits.csv"].read_bytes()
    assert not one.predictions("test")[PROBABILITIES].equals(
        other.predictions("test")[PROBABILITIES]
    )
    done = dr("train", "--resume", other.folder, "--epochs", 2)
    assert done.exit_code == 2
    assert "one seed of several" in done.stderr


def test_its_record_is_the_means_with_the_spread_beside(seeds):
    record = json.loads(dr("eval", seeds.folder).stdout)
    assert record == seeds.summary()["test"]
    told = record["seeds"]
    alone = [Run(folder).summary()["test"] for folder in seeds.networks()]
    assert [one["seed"] for one in told["each"]] == [3, 4]
    kappas = [one["qwk"]["value"] for one in alone]
    assert told["mean"]["qwk"] == pytest.approx(np.mean(kappas))
    assert told["sd"]["qwk"] == pytest.approx(np.std(kappas, ddof=1))
    assert all(one["seeds"] is None for one in alone)
    assert record["folds"] is None
    assert any("2 seeds" in text for text in record["warnings"])


def test_all_of_its_own_data_are_told_by_the_split_that_its_seeds_share(seeds):
    done = dr("eval", seeds.folder, seeds.config().data.root, "--split", "all")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["seen"]["train"] == 34


def test_predict_by_the_folder_is_the_mean_decided_as_eval_decides(seeds):
    mean = np.mean([Run(f).predictions("test")[PROBABILITIES] for f in seeds.networks()], axis=0)
    table = seeds.predictions("test")
    assert table[PROBABILITIES].to_numpy() == pytest.approx(mean, abs=1e-6)
    grader = Grader.load(seeds.folder, device="cpu", precision=seeds.config().precision)
    assert grader.calibration == seeds.calibration()
    root = Path(seeds.config().data.root)
    graded = list(grader.predict([root / path for path in table["path"]]))
    said = np.array([one["probabilities"] for one in graded])
    assert said == pytest.approx(mean, abs=1e-4)
    assert [one["predicted"] for one in graded] == table["predicted"].tolist()


def test_the_report_lists_it_as_one_run(seeds):
    read = json.loads(dr("report", seeds.folder.parent, "--format", "json").stdout)
    assert [one["name"] for one in read["runs"]] == ["two"]
    assert dr("train", "--resume", seeds.folder).exit_code == 2  # finished


def test_seeds_of_folds_are_refused():
    with pytest.raises(UsageError, match="--seeds and --folds"):
        TrainConfig(seeds=2, folds=2)


def test_a_photograph_that_one_seed_lost_is_in_no_mean(seeds, tmp_path):
    run = Run(shutil.copytree(seeds.folder, tmp_path / "two"))
    late = run["seed-4"] / "predictions-test.csv"
    lines = late.read_text().splitlines(keepends=True)
    late.write_text("".join(lines[:1] + lines[2:]))
    crossval.average(run, [Run(folder) for folder in run.seeds()])
    wanted = seeds.predictions("test")["path"].tolist()
    assert run.predictions("test")["path"].tolist() == wanted[1:]
