"""What holds for all commands: what they load, and how they refuse."""

import os
import subprocess
import sys
import typing

import pytest

from dr_cli import cli, device
from dr_cli.cli import options
from dr_cli.errors import UsageError
from tests.builders.program import dr

HEAVY = (
    "torch", "torchvision", "pandas", "numpy", "sklearn", "matplotlib", "seaborn", "scipy", "rich",
)  # fmt: skip


def test_help_loads_nothing_heavy():
    for arguments in (["--help"], ["train", "--help"], ["predict", "--help"]):
        code = (
            "import sys\nfrom dr_cli.cli import app\n"
            f"app({arguments!r}, standalone_mode=False)\n"
            f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stderr.strip().splitlines()[-1] == "[]"
        assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "nowhere"], "nowhere: no such folder"),
        (["train", "{data}", "--epochs", "0"], "--epochs"),
        (["train", "{data}", "--name", "first"], "exists"),
        (["train", "{empty}"], "an empty data set"),
        (["eval", "nowhere"], "nowhere: no such folder"),
        (["eval", "{empty}"], "summary.json"),
        (["eval", "{run}", "--split", "train"], "no predictions of its training split"),
        (["eval", "{run}", "--fail-under", "quality=1"], "no figure is called 'quality'"),
        (["predict"], "INPUT"),
        (["predict", "x.png", "--run", "{empty}"], "it has no weights"),
        (["predict", "{empty}"], "no photograph"),
        (["report", "{empty}"], "no finished run"),
        (["report", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_be_is_one_line_and_2(world, tmp_path, arguments, says):
    (tmp_path / "bare").mkdir()
    names = {"data": world / "data", "run": world / "runs" / "first", "empty": tmp_path / "bare"}
    before = sorted((world / "runs").iterdir())
    done = dr(*(a.format(**names) for a in arguments), "--quiet")
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert sorted((world / "runs").iterdir()) == before, "something half-written was left"


def test_what_may_be_typed_is_what_the_network_runs_on():
    """Two lists of words, as `device` brings torch and `dr --help` must not."""
    for option, known in (
        (options.Device, device.DEVICES),
        (options.Precision, device.PRECISIONS),
    ):
        words, _ = typing.get_args(option)
        assert typing.get_args(words) == known


def test_debug_shows_where_and_is_forgotten():
    done = dr("eval", "nowhere", "--debug")
    assert isinstance(done.exception, UsageError)
    assert dr("eval", "nowhere").exception.code == 2


def test_a_fault_of_its_own_is_one_line_too(monkeypatch):
    def fail():
        raise RuntimeError("of its own\nand more")

    monkeypatch.setattr("dr_cli.runs.runs_folder", fail)
    done = dr("predict", "x.png")
    assert done.exit_code == 1
    assert done.stderr.startswith("dr: RuntimeError: of its own (a fault of dr's own")
    assert len(done.stderr.splitlines()) == 1


def test_an_unknown_word_is_refused_in_typers_own_form(world):
    done = dr("train", world / "data", "--arch", "vgg16")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--arch" in done.stderr
    assert "resnet18" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell closes the streams")
@pytest.mark.parametrize(
    ("closed", "code", "says"),
    [
        ("<&-", 2, "no photograph in -"),
        (">&- </dev/null", 2, "no photograph in -"),
        ("2>&-", 2, ""),
    ],
)
def test_a_stream_that_the_caller_closed_is_no_fault(world, closed, code, says):
    line = f'"$0" -m dr_cli predict - --run "$1" {closed}'
    done = subprocess.run(
        ["sh", "-c", line, sys.executable, world / "runs" / "first"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_a_local_rank_that_was_left_over_silences_nobody(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setattr(cli, "app", lambda prog_name: seen.append(sys.stderr))
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("LOCAL_RANK", "1")
    before = sys.stderr
    cli.main()
    assert seen == [before]
