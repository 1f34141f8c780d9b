"""Killed, with nothing that could be heard: SIGKILL, a power cut."""

import os
import signal
import time

from trials import Trial, fault, need, runs


@fault("SIGKILL at a random moment of drawing, training, end", tries=200)
def kill(trial: Trial) -> None:
    """One process group, as the kernel or a machine that is taken away kills it."""
    reference, seconds = runs.reference(trial)
    cache = trial.folder / "cache"
    _kill_at(trial, runs.train(trial, cache), float(trial.rng.uniform(0.02, seconds)))
    _go_on(trial, cache, reference)


@fault("SIGKILL while each step writes a checkpoint", tries=50)
def kill_saving(trial: Trial) -> None:
    """The eyes and their crops are there, so that most of the time goes into last.pt."""
    reference, seconds = runs.reference(trial)
    cache = trial.kept / "cache"
    process = runs.train(trial, cache, "--save-every", 0)
    _kill_at(trial, process, float(trial.rng.uniform(0.2, 0.7) * seconds))
    _go_on(trial, cache, reference)


def _kill_at(trial: Trial, process, moment: float) -> None:
    while not process.ended() and time.perf_counter() - process.begun < moment:
        time.sleep(0.002)
    process.signal(signal.SIGKILL)
    process.wait()


def _go_on(trial: Trial, cache, reference) -> None:
    run = trial.folder / "runs" / "run"
    runs.need_whole(run)
    if not (run / "summary.json").exists():
        runs.resume(trial, cache)
    runs.need_whole(run)
    runs.need_equal(run, reference)
    left = [path for path in os.listdir(trial.folder / "runs") if path != "run"]
    need(not left or all(name.startswith(".new-run-") for name in left), f"left behind: {left}")
