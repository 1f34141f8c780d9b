"""What somebody made to do harm: nothing of it runs, and each is refused in a line."""

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from trials import Skipped, Trial, fault, mutants, need
from trials.fuzzed import call, fuzzed_run


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def refuse(*arguments: Any) -> None:
    """The command ends with 2, in one line."""
    done = call(*arguments)
    lines = done.stderr.strip().splitlines()
    need(done.exit_code == 2, f"exit code {done.exit_code} of {arguments[0]}: {done.stderr[:200]}")
    need(len(lines) == 1, f"{len(lines)} lines said: {done.stderr[:200]}")


def copy(trial: Trial) -> Path:
    """The finished run again, to be spoilt."""
    return Path(shutil.copytree(fuzzed_run(trial.kept), trial.folder / "run"))


@fault("a pickle bomb as weights, a grader, .npz and hashes", tries=20)
def bomb(trial: Trial) -> None:
    """Nothing goes off."""
    import torch

    run, mark = copy(trial), trial.folder / "mark"
    objects = np.array([Bomb(mark)], object)
    eyes = trial.folder / "eyes"
    mutants.make_tables(eyes)
    if trial.number % 4 == 0:
        torch.save({"state_dict": {}, "more": Bomb(mark)}, trial.folder / "a.pth")
        table = eyes / "images" / "labels.csv"
        rows = "".join(f"{k}_{side},{k % 5}\n" for k in range(1, 7) for side in ("left", "right"))
        table.write_text("image,level\n" + rows, encoding="utf-8")
        refuse("train", table, "--weights", trial.folder / "a.pth", "--quiet")
    elif trial.number % 4 == 1:
        (run / "model.safetensors").write_bytes(pickle.dumps(Bomb(mark)))
        refuse("eval", run)
    elif trial.number % 4 == 2:
        np.savez(eyes / "retinamnist.npz", train_images=objects, train_labels=objects)
        refuse("train", eyes / "retinamnist.npz", "--dry-run", "--quiet")
    else:
        from dr_cli.errors import UsageError
        from dr_cli.runs import Run

        np.savez(run / "hashes.npz", hashes=objects, version=1)
        try:
            Run(run).hashes(1)
            need(False, "hashes of objects were read")
        except UsageError:
            pass
    need(not mark.exists(), "a bomb went off")


@fault("records, options and workbooks without end", tries=20)
def endless(trial: Trial) -> None:
    """A gigabyte, a million levels, entities that grow, a cell far from all others."""
    run, kind = copy(trial), trial.number % 5
    if kind == 0:
        with (run / "config.json").open("r+b") as file:
            file.truncate(10**9)
        refuse("report", run)
    elif kind == 1:
        (run / "config.json").write_text('{"a":' * 10**6, encoding="utf-8")
        refuse("eval", run)
    elif kind == 2:
        (trial.folder / "a.toml").write_text("a = " + "[" * 10**5, encoding="utf-8")
        refuse("train", trial.folder, "--config", trial.folder / "a.toml")
    else:
        grows = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 9))
        start = f'<!DOCTYPE x [<!ENTITY a0 "ha">{grows}]>' if kind == 3 else ""
        where = "A1" if kind == 3 else "XFD1048576"
        space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
        cell = f'<c r="{where}" t="inlineStr"><is><t>{"&a8;" * (kind == 3)}</t></is></c>'
        sheet = f'{start}<worksheet xmlns="{space}"><row r="1">{cell}</row></worksheet>'
        with zipfile.ZipFile(trial.folder / "labels.xlsx", "w") as book:
            book.writestr("xl/worksheets/sheet1.xml", sheet)
        refuse("train", trial.folder / "labels.xlsx", "--dry-run", "--quiet")


@fault("links out of a run, pipes and devices in place of files", tries=24)
def elsewhere(trial: Trial) -> None:
    """Nothing is written through a link, nothing is waited for."""
    if not hasattr(os, "mkfifo"):
        raise Skipped("this system has no named pipes")
    run, mine = copy(trial), trial.folder / "mine"
    mine.write_text("mine", encoding="utf-8")
    name = ("log.txt", "config.json", "splits.csv")[trial.number % 3]
    (run / name).unlink(missing_ok=True)
    if name == "log.txt":
        (run / name).symlink_to(mine)
        refuse("train", "--resume", run)
    elif trial.number < 3:
        os.mkfifo(run / name)
        refuse("eval", run)
    else:
        (run / name).symlink_to("/dev/zero")
        refuse("eval", run)
    need(mine.read_text(encoding="utf-8") == "mine", "a file elsewhere was written")


@fault("names with escape sequences, HTML and formulas", tries=21)
def names(trial: Trial) -> None:
    """Shown by terminal, page and table, obeyed by none."""
    evil = "=1+a\x1b[2J\u202egnp.<img src=x>"
    run = copy(trial).rename(trial.folder / evil)
    form = ("html", "csv", "markdown")[trial.number % 3]
    done = call("report", run, "--format", form)
    text = done.stdout
    if form == "html":
        text = (run / "report.html").read_text(encoding="utf-8")
    need("<img src=x>" not in text or form == "csv", "a name is a tag of the page")
    shown = form == "csv" or not {"\x1b", "\u202e"} & set(text)
    need(shown, "a name's control characters stand in what is shown")
    formulas = [line for line in text.splitlines() if line.startswith("=")]
    need(form != "csv" or not formulas, "a table holds a formula")
