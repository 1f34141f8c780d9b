"""Mutated input at every door of `dr`: photographs, tables of labels, run folders, options.

A mutant must end as bad input does: exit code 0 to 3, no traceback and no fault of dr's own, what
was wrong in a line, within a time limit, and every row that went in told of.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
from PIL import Image
from typer import testing
from typer.main import get_command

from dr_cli.cli import app
from dr_cli.photographs import decoding
from trials import Trial, fault, mutants, need
from trials.mutants import NASTY, VALUES, Rng, change_bytes, change_record, change_text, encode

SECONDS = 120.0  # that one call may take; the slowest took 4 on a machine that had other work
TOGETHER = 50  # mutated photographs, tables a trial
MOST_PIXELS = 4_000_000  # a size may be mutated, too, to what takes half a gigabyte to decode
testing._get_command = cache(get_command)  # the program is built once, not in each call: 30 ms
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """TimeoutError where the block takes longer; in the main thread."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def own_limits() -> Iterator[None]:
    """What a block sets for the whole process (--max-pixels, --timeout) ends with it."""
    before, patience = Image.MAX_IMAGE_PIXELS, decoding._patience[0]
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
        decoding.limit_seconds(patience)


def call(*arguments: Any, **options: Any) -> Any:
    """What `dr arguments…` said, in this process. Lost where it did not end as it should."""
    told = " ".join(map(repr, map(str, arguments)))[:300]
    with own_limits(), at_most(SECONDS):
        done = testing.CliRunner().invoke(app, [str(a) for a in arguments], **options)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        need(False, f"{type(done.exception).__name__}: {done.exception} of {told}")
    need(done.exit_code in (0, 1, 2, 3), f"exit code {done.exit_code} of {told}")
    said = done.stderr.strip()
    for sign in ("Traceback", "a fault of dr's own"):
        need(sign not in said, f"{(said.splitlines() or [''])[-1][:300]} of {told}")
    need(said or not done.exit_code, f"failed without a word: {told}")
    held = _CONTROL.search(said)
    need(not held, f"a control character in what is said: {held and held[0]!r} of {told}")
    return done


def fuzzed_run(kept: Path) -> Path:
    """A run of one epoch on 40 drawn discs of 32 pixels, made once; its data are gone, so that no
    mutant goes on training."""
    run = kept / "fuzzed" / "run"
    if not run.exists():
        data = kept / "fuzzed" / "data"
        data.mkdir(parents=True)
        names = [f"{k // 2}_{('left', 'right')[k % 2]}" for k in range(40)]
        for k, name in enumerate(names):
            made = mutants.make_photograph(np.random.default_rng(k))
            (data / f"{name}.png").write_bytes(made)
        rows = "".join(f"{name},{k % 5}\n" for k, name in enumerate(names))
        (data / "labels.csv").write_text("image,level\n" + rows, encoding="utf-8")
        ask = ("train", data, "--epochs", 1, "--size", 32, "--name", "run", "--device", "cpu")
        done = call(*ask, env={"DR_RUNS": str(kept / "fuzzed"), "DR_CACHE": str(kept / "cache")})
        need(done.exit_code == 0, f"no run to mutate: {done.stderr}")
        shutil.rmtree(data)
    return run


# --- photographs ---------------------------------------------------------------------------------


@fault("a photograph mutated, through predict and the audit", tries=200)
def photographs(trial: Trial) -> int:
    """50 a trial."""
    return fuzz_photographs(trial.rng, trial.folder, fuzzed_run(trial.kept), TOGETHER)


def fuzz_photographs(rng: Rng, folder: Path, run: Path, count: int) -> int:
    """Each has a row: graded with probabilities, or with the reason why not; and the audit of
    `dr train` finds each whole or broken."""
    bases = list(mutants.make_photographs(int(rng.integers(4))).items())
    for number in range(count):
        name, data = bases[int(rng.integers(len(bases)))]
        (folder / f"{number:05}-{name}").write_bytes(change_bytes(data, rng))
    names = sorted(os.listdir(folder))
    limits = ("--max-pixels", MOST_PIXELS, "--quiet", "--device", "cpu")
    done = call("predict", folder, "--run", run, "--format", "jsonl", *limits)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    told = [Path(row["path"]).name for row in rows]
    need(told == names, f"{len(names)} photographs in, {len(rows)} rows out")
    for row in rows:
        error, name = row["error"], Path(row["path"]).name
        if error is None:
            total = sum(row["probabilities"])
            need(0.999 < total < 1.001, f"{name}: probabilities of {total}")
        else:
            well = error == " ".join(error.split()) and not _CONTROL.search(error)
            need(well, f"{name}: an error of more than a line: {error!r}")
    with own_limits():
        decoding.limit_pixels(MOST_PIXELS)
        _look_at(folder, names)
    return count


def _look_at(folder: Path, names: list[str]) -> None:
    from dr_cli.labels import reading
    from dr_cli.training import audit

    text = "".join(f"{name},{k % 5}\n" for k, name in enumerate(names))
    (folder / "labels.csv").write_text("image,grade\n" + text, encoding="utf-8")
    with at_most(SECONDS):
        labels = reading.read(folder / "labels.csv")
        seen = audit.inspect(labels, workers=1)
    told = int((seen.sizes.min(axis=1) > 0).sum()) + len(seen.failed)
    need(told == len(names), f"{len(names)} photographs, the audit tells of {told}")


# --- tables of labels ----------------------------------------------------------------------------


@fault("a table of labels mutated", tries=100)
def tables(trial: Trial) -> int:
    """50 a trial."""
    return fuzz_tables(trial.rng, trial.folder, TOGETHER)


def fuzz_tables(rng: Rng, folder: Path, count: int) -> int:
    """Each is refused in a line, or a row is told of for each that is there."""
    bases = mutants.make_tables(folder)
    for _ in range(count):
        name, text = bases[int(rng.integers(len(bases)))]
        mutant = change_text(text, rng)
        if name.endswith(".xlsx"):
            raw = mutants.make_workbook([line.split(",") for line in mutant.split("\n")])
            raw = change_bytes(raw, rng) if rng.random() < 0.3 else raw
        else:
            raw = encode(mutant, rng)
        (folder / name).write_bytes(raw)
        _read_labels(folder / name)
        (folder / name).unlink()
    return count


def _read_labels(path: Path) -> None:
    from dr_cli.errors import UsageError
    from dr_cli.labels import reading
    from dr_cli.labels import tables as reader

    try:
        with at_most(SECONDS):
            labels = reading.read(path)
    except UsageError as error:
        need("\n" not in str(error), f"more than a line: {error}")
        return
    except Exception as error:
        need(False, f"{type(error).__name__}: {error}; {path.read_bytes()[:2000]!r}")
    there, told = len(reader.read(path, header=False)), len(labels.table)
    need(there - 1 <= told <= there, f"{there} lines with something in them, {told} rows told of")
    lines = _count_lines(path)
    need(lines <= there, f"{lines} lines, read as {there} rows: {path.read_bytes()[:2000]!r}")


def _count_lines(path: Path) -> int:
    """By another hand than the reader's: no line is swallowed by a neighbour's quote."""
    if path.suffix == ".xlsx":
        return 0
    raw = path.read_bytes()
    marked = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    try:
        text = raw.decode("utf-16" if marked else "utf-8-sig", "replace" if marked else "strict")
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")
    rows = re.compile(
        '[^,;\t|]*[^,;\t| "][^,;\t|]*[ ,;\t|]'
    )  # a name and what parts it from a grade
    return sum(bool(rows.match(line)) for line in re.split("\r\n|\r|\n", text))


# --- run folders ---------------------------------------------------------------------------------

TEXTS = ("splits.csv", "predictions-val.csv", "predictions-test.csv", "metrics.csv")
RECORDS = ("config.json", "summary.json", "pictures.json")
BINARY = ("hashes.npz", "model.safetensors")
_READ = {  # what else a command reads, it reads as another does
    "eval": (*TEXTS[:3], "config.json", *BINARY),
    "report": (*TEXTS, *RECORDS),
    "predict": ("config.json", "model.safetensors"),
    "train": ("config.json", "splits.csv", "summary.json"),
}


@fault("a run folder mutated, through eval, report, predict and --resume", tries=2000)
def run_folder(trial: Trial) -> None:
    """One file of it."""
    fuzz_run(trial.rng, trial.folder, fuzzed_run(trial.kept))


def fuzz_run(rng: Rng, folder: Path, run: Path) -> None:
    """The commands that read the file end as they should, whatever is in it."""
    there = [name for name in (*TEXTS, *RECORDS, *BINARY) if (run / name).is_file()]
    name = str(rng.choice([name for name in there if name != BINARY[1] or rng.random() < 0.3]))
    photograph, mutant = folder / "eye.png", folder / "mutant"
    mutant.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (mutant / path.name).symlink_to(path) if path.name == BINARY[1] else shutil.copy(
                path, mutant / path.name
            )
    _change_file(mutant / name, rng)
    for command in [command for command, files in _READ.items() if name in files]:
        if command == "eval":
            form = str(rng.choice(["json", "table"]))
            call("eval", mutant, "--bootstrap", 0, "--format", form)
        elif command == "report":
            call("report", mutant, *(("--format", "json") if rng.random() < 0.5 else ()))
        elif command == "predict":
            photograph.write_bytes(mutants.make_photograph(rng))
            call("predict", photograph, "--run", mutant, "--device", "cpu", "--format", "json")
        else:
            call("train", "--resume", mutant)


def _change_file(path: Path, rng: Rng) -> None:
    raw = path.read_bytes()
    path.unlink()
    chance = rng.random()
    if chance < 0.03:
        return
    if chance < 0.06:
        path.mkdir()
        return
    if chance < 0.08:
        path.symlink_to(path.name)
        return
    if chance < 0.1:
        raw = b""
    elif path.name in RECORDS and chance < 0.75:
        value = json.loads(raw)
        value = change_record(value, rng) if value else VALUES[int(rng.integers(len(VALUES)))]
        raw = json.dumps(value, ensure_ascii=bool(rng.random() < 0.5)).encode(errors="replace")
    elif path.name in TEXTS and chance < 0.85:
        raw = encode(change_text(raw.decode(), rng), rng)
    elif path.name == BINARY[1]:  # its header decides; the numbers behind it are only numbers
        size = 8 + int.from_bytes(raw[:8], "little")
        raw = change_bytes(raw[:size], rng) + raw[size:]
    else:
        raw = change_bytes(raw, rng)
    path.write_bytes(raw)


# --- options -------------------------------------------------------------------------------------

TOML = """arch = "resnet18"
epochs = 3
size = 64
lr = 0.001
loss = "ce"
pretrained = false
val = 0.2
name = "a"
device = "cpu"
workers = 2
grade-column = "level"
"""


@fault("a file of options mutated", tries=1000)
def options(trial: Trial) -> None:
    """For `dr train --config`, which ends before anything is read: DATA is not there."""
    fuzz_options(trial.rng, trial.folder)


def fuzz_options(rng: Rng, folder: Path) -> None:
    """One file."""
    file = folder / "options.toml"
    file.write_bytes(encode(change_text(TOML, rng), rng))
    done = call("train", folder / "nowhere", "--config", file)
    need(done.exit_code == 2, f"exit code {done.exit_code} of {file.read_bytes()!r}")


@fault("a command line of random options and values", tries=1000)
def command_line(trial: Trial) -> None:
    """DATA is not there, the run is."""
    fuzz_command(trial.rng, trial.folder, fuzzed_run(trial.kept))


WRITE = ("opened", "help", "out", "figures", "explain", "debug", "resume")


def fuzz_command(rng: Rng, folder: Path, run: Path) -> None:
    """One line."""
    photograph = folder / "eye.png"
    photograph.write_bytes(mutants.make_photograph(rng))
    nowhere = folder / "nowhere"
    places = {
        "train": [[nowhere], [folder], [photograph]],
        "eval": [[run], [run, nowhere], [photograph], []],
        "predict": [[photograph, "--run", run], [nowhere, "--run", run], [run]],
        "report": [[folder], [run, photograph], [run, "--format", "json"]],
        "export": [[folder], [photograph], []],
    }
    name = str(rng.choice(list(places)))
    line = [name, *places[name][int(rng.integers(len(places[name])))]]
    known = testing._get_command(app).commands[name].params  # type: ignore[attr-defined]
    known = [one for one in known if one.param_type_name == "option" and one.name not in WRITE]
    for place in rng.permutation(len(known))[: int(rng.integers(5))]:
        line += _give(known[place], run, rng)
    call(*line, input="", env={"DR_RUNS": str(folder / "runs")})


def _give(option: Any, run: Path, rng: Rng) -> list[Any]:
    """An option with a value that it may have, or with none of those."""
    flag = str(rng.choice([*option.opts, *option.secondary_opts]))
    if option.is_flag or flag in option.secondary_opts:
        return [flag]
    known = list(get_args(option.type_descriptor.annotation))
    known = [one for one in known if isinstance(one, str)]
    known = known or [run, "0", "1", "0.5", "youden", "qwk=0.1"]
    given = known if rng.random() < 0.6 else [text for text in NASTY if "\0" not in text]
    return [flag, given[int(rng.integers(len(given)))]]
