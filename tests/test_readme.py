"""What the README says is what the program does: options, commands, links, layouts, rooms.

`python -m tests.test_readme` writes the options table anew into the README.
"""

import inspect
import re
import shlex
import shutil
import typing
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.models import OptionInfo
from typer.testing import CliRunner

from dr_cli.cli import app, export, predict, report, train
from dr_cli.cli import eval as eval_
from dr_cli.labels import layouts
from dr_cli.sample import drawn_set as sample

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = {
    "train": train.command, "eval": eval_.command, "predict": predict.command,
    "report": report.command, "export": export.command,
}  # fmt: skip
OPENS, CLOSES = "<!-- options: python -m tests.test_readme -->\n", "<!-- /options -->\n"
SHELL = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def dr(*arguments: str):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))


# --- the options table


def options(command: Callable[..., None]) -> list[tuple[str, str, str]]:
    """(flags, default, meaning) of a command's options, in the order of its help."""
    rows = []
    for parameter in inspect.signature(command).parameters.values():
        kind, info = (*typing.get_args(parameter.annotation), None, None)[:2]  # a Context has none
        if isinstance(info, OptionInfo):
            rows.append(_row(parameter, kind, info))
    return rows


def _row(parameter: inspect.Parameter, kind: typing.Any, info: OptionInfo) -> tuple[str, str, str]:
    first = [info.default] if isinstance(info.default, str) else []  # where Annotated puts it
    flags = [*first, *(info.param_decls or ())] or [f"--{parameter.name.replace('_', '-')}"]
    meaning, default = info.help or "", ""
    if said := re.search(r"\s*\[default: ([^\]]*)\]\.?", meaning):
        meaning, default = meaning.replace(said[0], ""), said[1].rstrip(".")
    elif parameter.default not in (None, False, inspect.Parameter.empty):
        default = str(parameter.default)
    meaning += "." if meaning and not meaning.endswith(".") else ""
    if choices := _choices(kind):
        meaning = f"{meaning} One of {', '.join(choices)}.".strip()
    if info.envvar:
        default = f"`${info.envvar}`, else {default}"
    shown = ", ".join(f"`{flag}`" for one in flags for flag in one.split("/"))
    return shown, default or "–", meaning


def _choices(kind: typing.Any) -> list[str]:
    kinds = (kind, *typing.get_args(kind))  # of `Literal[…] | None` its first half
    return [c for k in kinds if typing.get_origin(k) is typing.Literal for c in typing.get_args(k)]


def table() -> str:
    """Every option of the commands; a row for those that say the same in several."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name, command in COMMANDS.items():
        for row in options(command):
            rows.setdefault(row, []).append(name)
    lines = ["| option | of | default | meaning |", "| --- | --- | --- | --- |"]
    for (flags, default, meaning), commands in rows.items():
        of = "all" if len(commands) == len(COMMANDS) else ", ".join(commands)
        lines.append(f"| {flags} | {of} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def test_options_table_is_the_programs():
    written = README.split(OPENS)[1].split(CLOSES)[0]
    assert written == table(), "python -m tests.test_readme writes it anew"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_what_the_table_says(name):
    text = dr(name, "--help").stdout
    text = text.split("Examples:")[0]
    flags = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE))
    rows = options(COMMANDS[name])
    assert flags <= {f for row in rows for f in re.findall("`(--[^`]+)`", row[0])} | {"--help"}
    for shown, default, meaning in rows:
        for flag in re.findall("`(-[^`]+)`", shown):
            assert flag in text, flag
        assert packed(meaning.split("One of ")[0].rstrip(". ")) in packed(text), meaning
        if default != "–" and not default.startswith("`$"):
            assert f"default:{packed(default)}" in packed(text), (shown, default)


def packed(text: str) -> str:
    """Without white space: help is wrapped, the table is not."""
    return re.sub(r"\s", "", text)


# --- commands


def _lines() -> list[str]:
    """Every `dr …` in a shell block, pipes and substitutions taken apart."""
    found = []
    for block in SHELL:
        for line in block.replace("\\\n", " ").splitlines():
            line = line.split("  #")[0]
            found += re.findall(r"(?:^|\| |\$\(|&& |\d )(dr [^|>)&]*)", line)
    return found


def test_every_command_printed_can_be_typed():
    lines = _lines()
    assert len(lines) > 20
    for line in lines:
        _, name, *rest = shlex.split(line.replace("…", ""), comments=True)
        if name.startswith("--"):
            assert name in dr("--help").stdout, line
            continue
        known = dr(name, "--help").stdout
        for word in rest:
            if word.startswith("-") and word != "-":
                assert re.search(rf"(?<![\w-]){re.escape(word.split('=')[0])}\b", known), line


def test_what_is_printed_runs_but_for_fewer_epochs(tmp_path, monkeypatch, capsys):
    block = next(b for b in SHELL if b.startswith("dr train photographs/"))
    drawn = sample.ensure(tmp_path, images=40, size=64)
    shutil.copytree(drawn, tmp_path / "photographs")
    (tmp_path / "photographs" / "README.txt").unlink()  # which says that they are none
    for name in ("image.jpeg", "one.jpg", "two.jpg"):
        shutil.copy(next((drawn / "images").iterdir()), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DR_RUNS", raising=False)
    for line in block.splitlines():
        command, _, file = line.split("  #")[0].partition(" > ")
        _, name, *rest = shlex.split(command)
        done = dr(name, *rest, *(["--epochs", "1", "--size", "32"] if name == "train" else []))
        assert done.exit_code == 0, (line, done.output)
        if file:
            Path(file.strip()).write_text(done.stdout, encoding="utf-8")
    assert (tmp_path / "runs" / "report.html").is_file()
    assert (tmp_path / "grades.csv").read_text().startswith("path,predicted,name,p0")
    (code,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    exec(code.replace("epochs=10", "epochs=1, size=32"), {})
    qwk, *graded = capsys.readouterr().out.splitlines()
    assert qwk.startswith("{'value': ")
    assert [line[:7] for line in graded] == ["one.jpg", "two.jpg"]


# --- what it points at


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)\s]+)\)|<img[^>]+src=\"([^\"]+)\"", README):
        place = target[0] or target[1]
        if place.startswith("#"):
            heads = [re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-")
                     for h in re.findall(r"^#+ (.*)$", README, re.MULTILINE)]  # fmt: skip
            assert place[1:] in heads, place
        elif not place.startswith("https://"):
            assert (ROOT / place).exists(), place
    for picture in (ROOT / "examples" / "images").iterdir():
        assert picture.stat().st_size < 300_000, picture
        assert f"examples/images/{picture.name}" in README, f"{picture.name} is shown nowhere"


def test_layouts_rooms_and_environment_are_all_named():
    for layout in layouts.LAYOUTS:
        assert f"`{layout.name}`" in README, layout.name
    package = ROOT / "dr_cli"
    rows = re.findall(r"^\| (?:`(\w+)/`.*|the ground) \| (.*) \|$", README, re.MULTILINE)
    for wing, told in rows:
        rooms = {p.stem for p in (package / wing).glob("*.py") if not p.name.startswith("__")}
        assert not (rooms - set(re.findall(r"`(\w+)`", told))), wing or "the ground"
    assert {wing for wing, _ in rows} == {"", *(p.parent.name for p in package.glob("*/*.py"))}
    source = "".join(p.read_text(encoding="utf-8") for p in package.rglob("*.py"))
    for name in set(re.findall(r'environ(?:\.get\(|\[)"(DR_[A-Z_]+)"', source)):
        assert f"`{name}`" in README, name


def test_no_option_is_praised_that_is_not_there():
    known = "".join(dr(*name, "--help").stdout for name in ([], *([n] for n in COMMANDS)))
    of_others = {
        "--no-index",
        "--find-links",
        "--coverage",
        "--null",
        "--sets",
        "--cost",
        "--engines",
        "--precisions",
        "--require-hashes",
        "--nproc-per-node",
    }  # pip, benchmarks, torchrun
    for flag in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) - of_others:
        assert re.search(rf"{flag}\b", known), flag


if __name__ == "__main__":
    head, _, rest = README.partition(OPENS)
    text = head + OPENS + table() + CLOSES + rest.partition(CLOSES)[2]
    (ROOT / "README.md").write_text(text, encoding="utf-8")
