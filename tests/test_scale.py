"""The examples for more than one machine, queue or engine, and for a million photographs."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.distributed.run import get_args_parser
from typer.main import get_command

from dr_cli import Grader, runs
from dr_cli.cli import app
from dr_cli.cli.rows import to_row
from dr_cli.grades import Calibration
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.crop import Preprocessing
from tests.builders.photographs import picture

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(ROOT / "examples" / "slurm").iterdir(), ROOT / "examples" / "multi_node.sh"])
BASH = shutil.which("bash")
needs_bash = pytest.mark.skipif(BASH is None or os.name == "nt", reason="no bash here")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run with random weights, seven photographs, and a list that names one more."""
    folder = tmp_path_factory.mktemp("scale")
    torch.manual_seed(0)
    network = build_resnet("resnet18").eval()
    torch.nn.init.normal_(network.fc.weight)
    record = runs.ModelRecord("resnet18", Preprocessing(32).to_dict(), Calibration())
    (folder / "run").mkdir()
    runs.Run(folder / "run").save_model(network.state_dict(), record)
    paths = [folder / f"eye {k}.png" for k in range(8)]
    for k, path in enumerate(paths[:7]):
        picture(k % 5, seed=k, size=96).save(path)
    (folder / "list.txt").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    return folder


def ran(*command: object, **more: object) -> subprocess.CompletedProcess[str]:
    known = os.environ | {"DR_PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(part) for part in command], env=known | {k: str(v) for k, v in more.items()},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def as_one_process_says(text: str, world: Path) -> None:
    """A table of the list, in its order; probabilities as far as the size of batches lets them."""
    paths = (world / "list.txt").read_text(encoding="utf-8").splitlines()
    expected = list(map(to_row, Grader.load(world / "run").predict(paths)))
    found = list(csv.DictReader(io.StringIO(text)))
    assert list(found[0]) == list(expected[0])
    assert [row["path"] for row in found] == paths
    for row, record in zip(found, expected, strict=True):
        assert row["error"] == (record["error"] or "")
        if not record["error"]:
            assert row["predicted"] == str(record["predicted"])
            assert float(row["p0"]) == pytest.approx(record["p0"], abs=1e-4)


# --- queues and nodes


@needs_bash
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_one_and_names_only_options_that_exist(script):
    subprocess.run([BASH, "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    commands = get_command(app).commands.values()
    ours = {name for command in commands for option in command.params for name in option.opts}
    theirs = {name for action in get_args_parser()._actions for name in action.option_strings}
    queue = {"--overlap", "--ntasks-per-node", "--signal", "--array"}  # srun's and sbatch's
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", re.sub("#SBATCH.*", "", text)))
    assert named <= ours | theirs | queue
    for line in re.findall(r"#SBATCH (.*)", text):
        assert re.fullmatch(r"--[a-z-]+(=\S+)?", line)


STUB = {
    # The queue's programs on one node; `python` notes how it was started, and what it then does.
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "scontrol": '[ "$1" = show ] && { echo node7; echo node8; exit; }; echo "$*" >> "$LOG"',
    "python": 'echo "$*" >> "$LOG"; trap "echo heard >> $LOG; exit 1" USR1; '
    'for i in $(seq "${TENTHS:-0}"); do sleep 0.1; done',
}  # fmt: skip


@pytest.fixture
def queue(tmp_path):
    for name, text in STUB.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return {
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "DR_PYTHON": tmp_path / "python",
        "LOG": tmp_path / "log", "TMPDIR": tmp_path, "DR_RUNS": tmp_path / "runs",
        "DATA": "/share/eyes", "SLURM_JOB_ID": 70123, "SLURM_JOB_NUM_NODES": 2,
        "SLURM_GPUS_ON_NODE": 8, "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_SUBMIT_DIR": tmp_path,
    }  # fmt: skip


@needs_bash
def test_a_job_begins_its_run_and_goes_on_with_it_when_it_is_queued_again(queue):
    script = ROOT / "examples" / "slurm" / "train.sbatch"
    begun = ran(BASH, script, "--start", "drawn", **queue)  # which torchrun has options like
    assert begun.returncode == 0, begun.stderr
    run = queue["DR_RUNS"] / "job-70123"
    run.mkdir(parents=True)
    (run / "config.json").touch()
    ran(BASH, script, "--start", "drawn", SLURM_RESTART_COUNT=1, **queue)
    lines = queue["LOG"].read_text().splitlines()
    ends = ["train /share/eyes --name job-70123 --start drawn", f"train --resume {run}"]
    for line, end, restart in zip(lines, ends, (0, 1), strict=True):
        given = get_args_parser().parse_args(line.split()[2:])
        assert (given.nnodes, given.nproc_per_node) == ("2", "8")
        assert (given.rdzv_backend, given.rdzv_endpoint) == ("c10d", "node7:30123")
        assert given.rdzv_id == f"70123-{restart}"
        assert "SIGUSR1" in given.signals_to_handle
        assert f"{given.training_script} {' '.join(given.training_script_args)}" == f"dr_cli {end}"


@needs_bash
@pytest.mark.parametrize("stops", [True, False])
def test_time_that_is_up_is_told_once_and_the_job_queued_again(queue, stops):
    """But not one that was done before it heard of it."""
    script = ROOT / "examples" / "slurm" / "train.sbatch"
    known = os.environ | {name: str(value) for name, value in queue.items()}
    if not stops:
        (queue["TMPDIR"] / "python").write_text('#!/bin/sh\necho >> "$LOG"; trap "" USR1; sleep 1')
    process = subprocess.Popen([BASH, script], env=known | {"TENTHS": "600"})
    while not queue["LOG"].exists():
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.2)  # its trap stands
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=30) == (1 if stops else 0)
    after = queue["LOG"].read_text().splitlines()[1:]
    assert after == (["heard", "requeue 70123"] if stops else [])


@needs_bash
def test_an_array_of_tasks_grades_a_list_in_parts_and_their_tables_are_joined(world, tmp_path):
    script = ROOT / "examples" / "slurm" / "predict.sbatch"
    asked = {"RUN": world / "run", "LIST": world / "list.txt", "OUT": tmp_path / "grades"}
    for task in (4, 5):  # 5 has the photographs 1, 3, 5 and 7, which is not there
        place = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_MIN": 4}
        done = ran(BASH, script, SLURM_ARRAY_TASK_COUNT=2, **place, **asked)
        assert done.returncode == (1 if task == 5 else 0), done.stderr
    joined = ran("sh", ROOT / "examples" / "slurm" / "join.sh", tmp_path / "grades")
    as_one_process_says(joined.stdout, world)


# --- another engine


@pytest.mark.slow
def test_an_archive_is_graded_by_ray_and_what_is_there_is_passed_over(world, tmp_path):
    pytest.importorskip("ray")
    script, folder = ROOT / "examples" / "grade_archive_ray.py", tmp_path / "grades"
    command = [sys.executable, script, world / "run", world / "list.txt", folder, "--part", 3]
    done = ran(*command, OMP_NUM_THREADS=1)
    assert done.returncode == 1, done.stderr
    assert "7 graded, 1 failed" in done.stderr
    parts = sorted(folder.iterdir())
    assert [part.name for part in parts] == [f"part-0000000{k}.csv" for k in range(3)]
    first, *others = (part.read_text(encoding="utf-8") for part in parts)
    as_one_process_says(first + "".join(text.split("\n", 1)[1] for text in others), world)
    parts[1].unlink()
    before = parts[0].stat().st_mtime_ns
    done = ran(*command, OMP_NUM_THREADS=1)
    assert "\n3 graded, 0 failed" in f"\n{done.stderr}"
    assert sorted(folder.iterdir()) == parts
    assert parts[0].stat().st_mtime_ns == before


# --- what is measured


@pytest.mark.slow
def test_the_table_of_a_gpu_is_printed_in_small_on_a_cpu(tmp_path):
    small = ["--device", "cpu", "--size", 64, "--archs", "resnet18", "--batches", 8, "--steps", 2,
             "--images", 40, "--test-images", 12, "--epochs", 1, "--originals", 3,
             "--compile", "no", "--precisions", "fp32", "bf16"]  # fmt: skip
    script = ROOT / "examples" / "benchmarks" / "gpu.py"
    done = ran(sys.executable, script, *small, "--out", tmp_path / "gpu.json", OMP_NUM_THREADS=1)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["rows"]
    parts = [row["part"] for row in rows]
    assert parts == ["bare step", "trainer, crops mapped", "lab", "lab", *["inference"] * 4,
                     "decoding", "decoding"]  # fmt: skip
    assert all(0 < row["img/s"] < 1e5 for row in rows)
    assert 0.2 < rows[1]["of bare step"] < 2  # an epoch in which nothing is left to do is faster
    for row in rows:
        assert f"| {row['part']} | {row['what']} |" in done.stdout


@pytest.mark.slow
def test_what_a_million_takes_is_simulated_in_small(tmp_path):
    script = ROOT / "examples" / "benchmarks" / "scale.py"
    done = ran(sys.executable, script, "--count", 300, "--at", tmp_path, OMP_NUM_THREADS=1)
    assert done.returncode == 0, done.stderr
    told = [line.split()[:2] for line in done.stdout.splitlines()]
    assert told == [["part", "count"], *([part, "300"] for part in
                    ("order", "index", "stream", "eval", "pairs", "content"))]  # fmt: skip
    assert list(tmp_path.iterdir()) == []
