"""Killed, with nothing that could be heard: SIGKILL, a power cut."""

import contextlib
import os
import signal
import time
from pathlib import Path

from trials import Trial, fault, need, powercut, program, runs


@fault("SIGKILL at a random moment of drawing, training and end", tries=200)
def kill(trial: Trial) -> None:
    """Every fourth draws its eyes first."""
    reference, seconds = runs.reference(trial)
    draws = trial.number % 4 == 0
    cache = trial.folder / "cache" if draws else runs.copy_eyes(trial)
    process = runs.train(trial, cache)
    until = seconds + draws * runs.drawing_seconds(trial)
    kill_at(process, float(trial.rng.uniform(0.02, until)))
    need(_none_left(cache), "processes that draw outlive the one that was killed")
    go_on(trial, cache, reference)


@fault("SIGKILL while each step saves", tries=30)
def kill_saving(trial: Trial) -> None:
    """The eyes and their crops are there, so that most of the time goes into last.pt."""
    reference, seconds = runs.reference(trial)
    cache = trial.kept / "cache"
    process = runs.train(trial, cache, "--save-every", 0)
    kill_at(process, float(trial.rng.uniform(0.2, 0.7) * seconds))
    go_on(trial, cache, reference)


@fault("power cut at a random moment", tries=30)
def cut(trial: Trial) -> None:
    """Of the run and of the drawn eyes there is what was written through, and some of the rest."""
    reference, seconds = runs.reference(trial)
    cache, disk = trial.folder / "cache", trial.folder / "disk"
    process = runs.train(trial, cache, "--save-every", 0, within=lambda: powercut.watched(disk))
    kill_at(process, float(trial.rng.uniform(0.1, 1) * seconds))
    powercut.restart(disk, [trial.folder / "runs", cache], trial.rng)
    go_on(trial, cache, reference)


@fault("one of two processes of a training is killed, with --max-restarts 1", tries=10)
def kill_rank(trial: Trial) -> None:
    """All begin again, and go on from last.pt, or anew where there is none yet."""
    two = "--processes", 2
    reference, seconds = runs.reference(trial, *two)
    cache, rank = trial.kept / "cache", trial.rng.integers(2)
    process = runs.train(trial, cache, *two, "--max-restarts", 1, "--save-every", 0)
    own = f"DR_RUNS={trial.folder / 'runs'}"
    moment = process.begun + float(trial.rng.uniform(0.1, 1) * seconds)
    while not process.ended():
        if time.perf_counter() > moment and (found := find(f"RANK={rank}", own)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found[0], signal.SIGKILL)
            break
        time.sleep(0.01)
    code = process.wait()
    need(code == 0, f"it ended with {code}: {process.said().strip()[-300:]!r}")
    need(not find(own), "processes outlive the training")
    runs.need_whole(trial.folder / "runs" / "run")
    runs.need_equal(trial.folder / "runs" / "run", reference)


def find(*variables: str) -> list[int]:
    """The processes whose environment has all of these."""
    wanted = {variable.encode() for variable in variables}
    entries = Path("/proc").glob("[0-9]*/environ")
    return [
        int(entry.parent.name)
        for entry in entries
        if wanted <= set(_environment(entry).split(b"\0"))
    ]


def kill_at(process: program.Process, moment: float) -> None:
    """SIGKILL so many seconds after it began, unless it has ended."""
    while not process.ended() and time.perf_counter() - process.begun < moment:
        time.sleep(0.002)
    process.signal(signal.SIGKILL)
    process.wait()


def go_on(trial: Trial, cache: Path, reference: Path) -> None:
    """Lost unless the run is whole as it stands, and, gone on with, what it would have been."""
    run = trial.folder / "runs" / "run"
    runs.need_whole(run)
    if (run / "summary.json").exists():
        (run / ".lock").unlink(missing_ok=True)  # nobody's, and no later command minds it
    else:
        runs.resume(trial, cache)
    runs.need_whole(run)
    runs.need_equal(run, reference)
    others = [name for name in os.listdir(trial.folder / "runs") if name != "run"]
    # A killed process's, not a minute old: another one may be about to make it a run.
    need(all(name.startswith(".new-run-") for name in others), f"left behind: {others}")


def _none_left(cache: Path, seconds: float = 20) -> bool:
    """Whether no process that was started for this cache is there any more, soon."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        if not find(f"DR_CACHE={cache}"):
            return True
        time.sleep(0.2)
    return False


def _environment(entry: Path) -> bytes:
    try:
        return entry.read_bytes()
    except OSError:
        return b""
