"""The examples run, on drawn eyes; the lab's script trains what the course trained."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from dr_cli.cli import app
from dr_cli.sample import drawn_set
from dr_cli.training.config import TrainConfig
from tests.builders import photographs

ROOT = Path(__file__).parents[1]
SH = shutil.which("sh")
needs_sh = pytest.mark.skipif(SH is None, reason="no sh here, as on Windows without Git's")
needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


def started(*command: object, **more: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"DR_PYTHON": sys.executable}
    environment |= {name: str(value) for name, value in more.items()}
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=environment, capture_output=True,
        text=True, encoding="utf-8", timeout=280,
    )  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Drawn eyes and, made by python_api.py, a run on them; `said` is what that printed."""
    folder = tmp_path_factory.mktemp("examples")
    data = drawn_set.ensure(folder / "cache", images=40, size=64)
    environment = {"DR_CACHE": folder / "cache", "DR_RUNS": folder / "runs"}
    done = started(sys.executable, "examples/python_api.py", data, SIZE=32, EPOCHS=1, **environment)
    assert done.returncode == 0, done.stderr
    return {"data": data, "said": done.stdout, "environment": environment, "folder": folder}


def test_python_api(world):
    assert str(world["folder"] / "runs" / "resnet18") in world["said"]
    counts = [int(n) for n in re.findall(r"\d+", world["said"].split("[[")[1].split("]]")[0])]
    assert len(counts) == 25
    assert sum(counts) == 10  # the sample's test split
    assert "loss of the last batch" in world["said"]
    made = {path.name for path in (world["folder"] / "runs" / "resnet18").iterdir()}
    assert "my-confusion.png" in made
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = readme.split("## The run folder")[1].split("```")[1]
    names = {"my-confusion.png", *re.findall(r"[\w-]+\.[a-z]+", listed.split("\n", 2)[2])}
    assert made == names - {"log.txt"}  # which the command writes


@needs_sh
@needs_jq
def test_pipelines(world, tmp_path):
    names = tmp_path / "photo graphs"
    names.mkdir()
    for k, picture in enumerate(sorted((world["data"] / "images").iterdir())[:4]):
        shutil.copy(picture, names / f"a name\nof {k}.jpg")
    (names / "broken.jpg").touch()
    shutil.copy(world["data"] / "README.txt", names)  # by which drawn eyes are known
    done = started(SH, "examples/pipelines.sh", names, OUT=tmp_path / "out", **world["environment"])
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "grades.jsonl").read_text(encoding="utf-8")
    records = [json.loads(line) for line in text.splitlines()]
    assert len(records) == 5
    assert [Path(r["path"]).name for r in records if r["error"]] == ["broken.jpg"]
    copied = {path.name for path in (tmp_path / "out" / "referable").iterdir()}
    assert copied == {Path(r["path"]).name for r in records if r["referable"]}
    assert done.stdout.count("\npath,predicted,name") == 1
    assert done.stdout.rstrip().splitlines()[-1].startswith("resnet18\t")


@needs_sh
def test_quickstart_in_small(world):
    more = {"DR_DATA": world["data"], "SIZE": 32, "EPOCHS": 1, "COLUMNS": 200}
    done = started(SH, "examples/quickstart.sh", **world["environment"], **more)
    assert done.returncode == 0, done.stderr
    page = world["folder"] / "runs" / "report.html"
    assert done.stdout.rstrip().splitlines()[-1] == str(page)
    assert page.is_file()
    assert "Confusion: rows true, columns predicted" in done.stdout
    assert len(re.findall(r"drawn_\d+_(?:left|right)", done.stdout)) == 3


@pytest.mark.slow
@needs_sh
def test_quickstart_as_printed(tmp_path):
    """Under five minutes on two cores; the run is better than the majority grade."""
    folders = {"DR_CACHE": tmp_path / "cache", "DR_RUNS": tmp_path / "runs"}
    done = started(SH, "examples/quickstart.sh", **folders)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "runs" / "resnet18" / "summary.json").read_text("utf-8"))
    assert summary["test"]["qwk"]["ci95"][0] > 0


# --- the lab


STUB = """#!/bin/sh
[ "$1" = -c ] && exit {fetch}
printf '%s\\n' "$*" >> "{log}"
[ "$3" = train ] || exit 0
while [ $# -gt 0 ]; do
    [ "$1 $2" = "--name ${{FAILING:-}}" ] && exit "$CODE"
    [ "$1" = --name ] && mkdir -p "$DR_RUNS/$2" && echo '{{}}' > "$DR_RUNS/$2/summary.json"
    shift
done
"""


def lab(folder: Path, *, fetch: bool, ends: int = 0, **more: object) -> tuple[list[str], str]:
    """Runs lab.sh with a `dr` that only notes what it is told: its command lines, and stderr."""
    stub, log = folder / "python", folder / "log"
    stub.write_text(STUB.format(fetch=int(not fetch), log=log))
    stub.chmod(0o755)
    log.write_text("")
    more |= {"DR_PYTHON": stub, "DR_RUNS": folder / "runs", "DATA": "photographs"}
    done = started(SH, "examples/lab.sh", **more)
    assert done.returncode == ends, done.stderr
    return [line.removeprefix("-m dr_cli ") for line in log.read_text().splitlines()], done.stderr


def config(line: str) -> TrainConfig:
    """What `dr train` makes of a command line."""
    _, _, *arguments = line.split()
    given = get_command(app).commands["train"].make_context("train", arguments).params
    fields = TrainConfig.__dataclass_fields__
    return TrainConfig(**{k: v for k, v in given.items() if k in fields and v is not None})


COURSE = {
    "size": 512, "batch_size": 4, "optimizer": "sgd", "momentum": 0.9, "nesterov": False,
    "lr": 1e-3, "weight_decay": 5e-4, "schedule": "constant", "warmup": 0.0, "loss": "ce",
    "val": "test", "augment": "none", "illumination": "kept", "decision": "argmax",
}  # fmt: skip


@needs_sh
def test_lab_trains_as_the_course_did(tmp_path):
    lines, said = lab(tmp_path, fetch=True)
    made = [config(line) for line in lines[:-1]]
    assert made == [
        TrainConfig(arch="resnet18", epochs=10, **COURSE),
        TrainConfig(arch="resnet18", epochs=10, pretrained=True, **COURSE),
        TrainConfig(arch="resnet50", epochs=5, **COURSE),
        TrainConfig(arch="resnet50", epochs=5, pretrained=True, **COURSE),
        TrainConfig(
            arch="resnet18", epochs=10, balance="oversample", **COURSE | {"augment": "flip"}
        ),
    ]
    assert lines[-1] == f"report {tmp_path / 'runs'}"
    assert "left out" not in said


@needs_sh
def test_lab_says_what_it_leaves_out_and_keeps_what_is_done(tmp_path):
    lines, said = lab(tmp_path, fetch=False, SIZE=64, EPOCHS=2)
    assert [config(line).pretrained for line in lines[:-1]] == [False] * 3
    assert {(config(line).size, config(line).epochs) for line in lines[:-1]} == {(64, 2)}
    assert "left out: resnet18-pretrained resnet50-pretrained" in said
    assert "WEIGHTS18=FILE" in said
    lines, said = lab(tmp_path, fetch=False, WEIGHTS18="a.pth", WEIGHTS50="b.pth")
    assert [config(line).weights for line in lines[:-1]] == ["a.pth", "b.pth"]
    assert "left out" not in said
    assert said.count("finished already") == 3


@needs_sh
def test_lab_goes_on_when_a_run_fails_and_names_it(tmp_path):
    lines, said = lab(tmp_path, fetch=True, ends=1, FAILING="resnet50", CODE=2)
    assert [config(line).arch for line in lines[:-1]] == ["resnet18"] * 2 + ["resnet50"] * 2 + [
        "resnet18"
    ]
    assert lines[-1] == f"report {tmp_path / 'runs'}"
    assert "resnet50 failed (exit code 2); the others go on" in said
    assert said.splitlines()[-1].startswith("failed: resnet50; ")


@needs_sh
def test_lab_stops_when_it_is_interrupted(tmp_path):
    lines, _ = lab(tmp_path, fetch=True, ends=130, FAILING="resnet18-pretrained", CODE=130)
    assert len(lines) == 2


@needs_sh
def test_lab_needs_data():
    done = started(SH, "examples/lab.sh")
    assert done.returncode == 2
    assert "DATA=folder" in done.stderr


@pytest.mark.slow
@needs_sh
def test_lab_in_small(tmp_path):
    from safetensors.torch import save_file

    from dr_cli import build_resnet

    data = photographs.course(tmp_path / "data")
    weights = {}
    for depth in (18, 50):
        weights[f"WEIGHTS{depth}"] = tmp_path / f"{depth}.safetensors"
        save_file(build_resnet(f"resnet{depth}").state_dict(), weights[f"WEIGHTS{depth}"])
    folders = {"DR_CACHE": tmp_path / "cache", "DR_RUNS": tmp_path / "runs"}
    done = started(SH, "examples/lab.sh", DATA=data, SIZE=32, EPOCHS=1, **weights, **folders)
    assert done.returncode == 0, done.stderr
    assert {path.parent.name for path in (tmp_path / "runs").glob("*/summary.json")} == {
        "resnet18", "resnet18-pretrained", "resnet50", "resnet50-pretrained",
        "resnet18-more-of-rare-grades",
    }  # fmt: skip
    assert (tmp_path / "runs" / "report.html").is_file()


# --- the installation


@needs_sh
def test_install_once_and_again_when_the_dependencies_change(tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("python", "pip"):
        (tmp_path / ".venv" / "bin" / name).write_text('#!/bin/sh\necho "$@" >> log\n')
        (tmp_path / ".venv" / "bin" / name).chmod(0o755)
    (tmp_path / "pyproject.toml").write_text("one")

    def installed(extras: str = "") -> list[str]:
        script = f"set -eu\nextras='{extras}'\n. {ROOT}/examples/install.sh"
        (tmp_path / "log").write_text("")
        environment = {k: v for k, v in os.environ.items() if k != "DR_PYTHON"}
        subprocess.run([SH, "-c", script], cwd=tmp_path, env=environment, check=True)
        return (tmp_path / "log").read_text().splitlines()

    assert installed()[0].endswith("-e .")
    assert installed() == []
    assert installed("[test]")[0].endswith("-e .[test]")
    assert installed("[test]") == installed() == []
    (tmp_path / "pyproject.toml").write_text("two")
    assert installed()[0].endswith("-e .")


@needs_sh
def test_install_refuses_an_old_python(tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    script = f". {ROOT}/examples/install.sh; echo went on"
    done = subprocess.run(
        [SH, "-c", script], cwd=tmp_path, capture_output=True, text=True,
        env={"PATH": os.environ["PATH"], "PYTHON": str(old)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "needs Python 3.11" in done.stderr
    assert "went on" not in done.stdout


def test_faults_are_listed_and_a_trial_is_done(tmp_path):
    """The trials themselves take minutes; what they found has a test of its own elsewhere."""
    script = ROOT / "examples" / "benchmarks" / "faults.py"
    listed = started(sys.executable, script, "--list")
    assert "SIGKILL at a random moment" in listed.stdout
    ask = (script, "--only", "nobody may write", "--tries", "4", "--out", tmp_path / "kept.jsonl")
    for _ in range(2):  # the second time what is kept is told
        *_, row = started(sys.executable, *ask, TMPDIR=tmp_path).stdout.splitlines()
        assert row.startswith(
            "| a run folder that nobody may write, or whose name is too long | 4 | 4 | nothing |"
        )
        assert len((tmp_path / "kept.jsonl").read_text().splitlines()) == 4
