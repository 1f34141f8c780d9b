"""Several processes on one training, evaluation or prediction, as a person starts them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dr_cli.runs import LAUNCH
from tests.builders.program import dr

ENV = os.environ | {"OMP_NUM_THREADS": "1"}
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "--", "dr_cli")


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/environ").exists(), reason="processes are found in /proc"
)


def program(*arguments, **options):
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def find_process(variable: str, folder: Path) -> int | None:
    """The one with this variable in its environment that trains into `folder`."""
    wanted = {variable.encode(), f"DR_RUNS={folder}".encode()}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted <= set((process / "environ").read_bytes().split(b"\0")):
                return int(process.name)
    return None


@pytest.fixture
def training(world, tmp_path):
    """Two processes of one training of which an epoch is done, as a function of further options."""
    started = []

    def begin(*more):
        options = ("--size", 32, "--epochs", 4, "--batch-size", 8, "--name", "two")
        command = ["-m", "dr_cli", "train", world / "data", *options, "--processes", 2, *more]
        process = subprocess.Popen(
            [sys.executable, *map(str, command)], env=ENV | {"DR_RUNS": str(tmp_path / "runs")},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(process)
        while not (tmp_path / "runs" / "two" / "metrics.csv").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@needs_proc
def test_a_process_that_is_killed_is_started_again_and_the_one_run_goes_on(training, tmp_path):
    runs = tmp_path / "runs"
    started = training("--max-restarts", 1)
    second = find_process("RANK=1", runs)
    assert second
    os.kill(second, signal.SIGKILL)
    said, told = started.communicate(timeout=300)
    assert started.returncode == 0, told
    assert said == f"{runs / 'two'}\n"
    assert "going on with" in told
    assert [path.name for path in runs.iterdir()] == ["two"]
    epochs = (runs / "two" / "metrics.csv").read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in epochs] == ["1", "2", "3", "4"]
    assert (runs / "two" / "summary.json").exists()
    assert not (runs / "two" / LAUNCH).exists()


@needs_proc
def test_a_process_that_is_killed_is_named_and_ends_the_others(training, tmp_path):
    started = training()
    second = find_process("RANK=1", tmp_path / "runs")
    assert second
    os.kill(second, signal.SIGKILL)
    said, told = started.communicate(timeout=60)
    assert (started.returncode, said) == (1, "")
    assert told.count("process 1 of 2 was killed (SIGKILL)") == 1
    assert "Traceback" not in told
    assert not find_process("RANK=0", tmp_path / "runs")


@needs_proc
def test_a_signal_to_the_launcher_is_handed_on_and_the_run_goes_on_later(training, tmp_path):
    run = tmp_path / "runs" / "two"
    started = training()
    started.terminate()
    said, told = started.communicate(timeout=60)
    assert (started.returncode, said) == (143, "")
    assert told.count(f"--resume {run}") == 1, told
    assert not [rank for rank in "01" if find_process(f"RANK={rank}", run.parent)]
    assert dr("train", "--resume", run).exit_code == 0
    assert (run / "summary.json").exists()


def test_what_none_can_do_is_said_once():
    done = program("-m", "dr_cli", "train", "/nowhere", "--processes", 2, env=ENV)
    assert done.returncode == 2
    assert done.stderr.count("no such folder") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("options", [("--max-restarts", 1), ("--rank-timeout", 0)])
def test_an_option_of_several_processes_is_refused_where_there_is_one(options):
    assert dr("train", *options).exit_code == 2


def test_folds_are_trained_side_by_side(world, tmp_path):
    options = ("--size", 32, "--epochs", 1, "--folds", 3, "--name", "three", "--processes", 2)
    run = tmp_path / "three"
    done = program("-m", "dr_cli", "train", world / "data", *options,
                   env=ENV | {"DR_RUNS": str(tmp_path)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [f"fold {k} of 3" in done.stderr for k in (1, 2, 3)] == [True, False, True]
    assert sorted(path.parent.name for path in run.glob("*/summary.json")) == [
        "fold-1", "fold-2", "fold-3",
    ]  # fmt: skip
    assert len((run / "predictions-test.csv").read_text().splitlines()) == 61


def test_torchrun_shares_an_evaluation_out(world):
    asked = ("eval", world / "runs" / "first", world / "data", "--split", "all", "--bootstrap", 0)
    done = program(*TORCHRUN, *asked, env=ENV)
    assert done.returncode == 0, done.stderr
    assert done.stdout == dr(*asked).stdout
    assert '"n": 60' in done.stdout


def test_torchrun_shares_photographs_out_and_their_order_is_kept(world, tmp_path):
    listed = sorted((world / "data").glob("*/*.jpeg"), key=lambda path: path.stem[::-1])
    listed.insert(7, tmp_path / "absent.png")
    names = "".join(f"{path}\n" for path in listed)
    asked = ("predict", "-", "--run", world / "runs" / "first", "--batch-size", 2)
    done = program(*TORCHRUN, *asked, input=names, env=ENV)
    alone = dr(*asked, input=names)
    assert alone.exit_code == 1
    assert done.stdout == alone.stdout
    assert done.stderr.count("1 of 61 inputs failed") == 1
