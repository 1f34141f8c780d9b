"""Help as a person reads it: by subject, as wide as the terminal, examples last; completion."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dr_cli.cli import options
from dr_cli.cli.help import SUBJECTS
from dr_cli.training.config import TrainConfig
from tests.builders.program import dr

COMMANDS = ("train", "eval", "predict", "report", "export")


def ask(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    """What a process of its own prints: the runner of tests is always 80 characters wide."""
    program = [sys.executable, "-c", "from dr_cli.cli import main; main()", *arguments]
    known = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment}
    return subprocess.run(
        program, env=known, cwd=cwd, capture_output=True, text=True, check=False
    ).stdout


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", [60, 80, 140])
def test_help_keeps_to_the_terminals_width(name, width):
    told, examples = ask(name, "--help", COLUMNS=str(width)).split("Examples:")
    widest = max(map(len, told.splitlines()))
    assert widest <= width
    assert width < 140 or widest > 82  # what there is, is used; `report` has little to say
    assert all(line.startswith(("  dr ", "  find ")) for line in examples.strip("\n").splitlines())
    assert not re.search(r" +$", told, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_speaks_no_python(name):
    text = dr(name, "--help").stdout
    assert not re.search(r"<(str|int|float|path|list|bool)|INTEGER|TEXT|list\[", text)
    assert ".]" not in text  # one form of default
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert headings == [h for h in (*SUBJECTS, "Examples") if h in headings]


def test_every_option_of_a_run_has_one_subject():
    placed = [field for fields in options.FIELDS.values() for field in fields]
    assert sorted(placed) == sorted(f.name for f in dataclasses.fields(TrainConfig))


def test_a_commands_line_in_the_programs_help_is_whole():
    text = dr("--help").stdout
    assert "..." not in text.split("Commands:")[1]


def complete(line: str, cwd: Path) -> list[str]:
    """What bash is offered after this much of a line."""
    words = {"DR_RUNS": "runs", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    return ask(cwd=cwd, _DR_COMPLETE="complete_bash", **words).split()


def test_words_layouts_and_runs_are_completed(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "config.json").write_text("{}")
    (tmp_path / "runs" / "none").mkdir()
    assert complete("dr train --arch resnet1", tmp_path) == ["resnet18", "resnet101", "resnet152"]
    assert complete("dr train --loss ce", tmp_path) == ["ce", "ce+mse"]
    assert complete("dr train --layout apt", tmp_path) == ["aptos"]
    for line in ("dr train --resume ", "dr eval ", "dr predict --run ", "dr report "):
        assert complete(line, tmp_path) == ["runs/one", "runs/two"], line
    assert complete("dr eval runs/t", tmp_path) == ["runs/two"]
