"""Some of the mutants that examples/benchmarks/faults.py makes thousands of."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dr_cli.grades import Calibration
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.crop import Preprocessing
from dr_cli.runs import ModelRecord, Run
from tests.builders.runs import write_pictures, write_run

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture(scope="module")
def fuzzed():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        from trials import fuzzed

        yield fuzzed


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run whose data lie nowhere, with weights that grade."""
    folder = write_run(tmp_path_factory.mktemp("fuzz") / "run")
    write_pictures(folder)
    torch.manual_seed(0)
    record = ModelRecord("resnet18", Preprocessing(32).to_dict(), Calibration())
    Run(folder).save_model(build_resnet("resnet18").state_dict(), record)
    return folder


FIFTIES = pytest.mark.parametrize("seed", range(10))  # 500 of each


def draw(seed):
    return np.random.default_rng(seed)


@FIFTIES
def test_photographs(fuzzed, run, tmp_path, seed):
    fuzzed.fuzz_photographs(draw(seed), tmp_path, run, 50)


@FIFTIES
def test_tables_of_labels(fuzzed, tmp_path, seed):
    fuzzed.fuzz_tables(draw(seed), tmp_path, 50)


@pytest.mark.parametrize(  # 0.1 s each: all but the first 25 with the slow ones
    "seed", [pytest.param(k, marks=pytest.mark.slow if k else ()) for k in range(20)]
)
def test_run_folders(fuzzed, run, tmp_path, seed):
    for number in range(25):
        (tmp_path / str(number)).mkdir()
        fuzzed.fuzz_run(draw([seed, number]), tmp_path / str(number), run)


@FIFTIES
def test_files_of_options(fuzzed, tmp_path, seed):
    for number in range(50):
        fuzzed.fuzz_options(draw([seed, number]), tmp_path)


@FIFTIES
def test_command_lines(fuzzed, run, tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    for number in range(50):
        fuzzed.fuzz_command(draw([seed, number]), tmp_path, run)
