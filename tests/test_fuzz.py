"""A few hundred of the mutants that examples/benchmarks/faults.py makes thousands of."""

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
EYES = 50


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


def few_and_many(few: int, many: int):
    """The few in every suite, the many with those that take minutes."""
    return pytest.mark.parametrize(
        "seed",
        [pytest.param(k, marks=pytest.mark.slow if k >= few else ()) for k in range(many)],
    )


@few_and_many(2, 10)
def test_photographs(fuzzed, run, tmp_path, seed):
    fuzzed.fuzz_photographs(np.random.default_rng(seed), tmp_path, run, EYES)


@few_and_many(2, 10)
def test_tables_of_labels(fuzzed, tmp_path, seed):
    fuzzed.fuzz_tables(np.random.default_rng(seed), tmp_path, 50)


@few_and_many(20, 500)
def test_run_folders(fuzzed, run, tmp_path, seed):
    fuzzed.fuzz_run(np.random.default_rng(seed), tmp_path, run)


@few_and_many(50, 500)
def test_files_of_options(fuzzed, tmp_path, seed):
    fuzzed.fuzz_options(np.random.default_rng(seed), tmp_path)


@few_and_many(20, 500)
def test_command_lines(fuzzed, run, tmp_path, monkeypatch, seed):
    monkeypatch.chdir(tmp_path)
    fuzzed.fuzz_command(np.random.default_rng(seed), tmp_path, run)
