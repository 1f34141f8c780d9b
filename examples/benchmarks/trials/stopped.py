"""Asked to stop: signals, and a reader that has had enough."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from trials import Trial, fault, need, program, runs
from trials.killed import go_on

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


@fault("SIGINT, TERM, HUP or USR1 at a random moment", tries=24)
def stop(trial: Trial) -> None:
    """The eyes are drawn; their crops are not made."""
    _stop(trial, [trial.rng.choice(SIGNALS)])


@fault("a second signal soon after the first", tries=20)
def stop_twice(trial: Trial) -> None:
    _stop(trial, trial.rng.choice(SIGNALS, 2))


def _stop(trial: Trial, numbers) -> None:
    reference, seconds = runs.reference(trial)
    cache, run = runs.copy_eyes(trial), trial.folder / "runs" / "run"
    process = runs.train(trial, cache)
    moment = float(trial.rng.uniform(0.1, seconds))
    while not process.ended() and time.perf_counter() - process.begun < moment:
        time.sleep(0.002)
    for number in numbers:
        process.signal(int(number))
        time.sleep(float(trial.rng.uniform(0, 0.05)))
    code, said = process.wait(), process.said()
    need("Traceback" not in said, f"a traceback: {said[-200:]!r}")
    if code == 0:  # it came too late
        return
    own = {128 + int(number) for number in numbers}
    if "interrupted" in said:  # it was about to end, and the second one did it
        own |= {-int(number) for number in numbers[1:]}
    early = {-int(number) for number in numbers} if not run.exists() else set()  # as Python begins
    need(code in own | early, f"ended with {code} and not {own}: {said[-200:]!r}")
    if code > 0 or run.exists():
        told = [line for line in said.splitlines() if "interrupted" in line]
        need(len(told) == 1, f"interrupted is said {len(told)} times: {said[-200:]!r}")
        way = f"--resume {run}" if run.exists() else "nothing was begun"
        need(way in told[0] or not run.exists(), f"no way on: {told}")
    go_on(trial, cache, reference)


@fault("`| head` closes what a command writes to", tries=20)
def pipe(trial: Trial) -> None:
    reference, _ = runs.reference(trial)
    photographs = runs.eyes(trial.kept / "cache") / "images"
    commands = (
        ("predict", photographs, "--run", reference, "--format", "jsonl"),
        ("eval", reference, "--format", "csv"),
        ("report", reference, "--format", "csv"),
        ("train", runs.eyes(trial.kept / "cache"), "--dry-run", "--format", "json", "--size", 32),
    )
    command = [*map(str, commands[trial.number % len(commands)])]
    reader, writer = os.pipe()
    os.close(reader)
    env = os.environ | {"DR_CACHE": str(trial.kept / "cache")}
    ended = subprocess.run(
        [sys.executable, "-m", "dr_cli", *command], stdout=writer, stderr=subprocess.PIPE,
        text=True, env=env, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    os.close(writer)
    loud = "Traceback" in ended.stderr or "Broken" in ended.stderr or "pipe" in ended.stderr.lower()
    need(not loud, f"dr {command[0]}: {ended.stderr[-200:]!r}")


@fault("a process that draws is killed", tries=10)
def drawer(trial: Trial) -> None:
    """By its kernel, as where memory runs out; the eyes are drawn none the less."""
    runs.reference(trial)
    cache, said = trial.folder / "cache", trial.folder / "said.txt"

    def draw() -> None:
        from dr_cli.cli.console import Console
        from dr_cli.sample import drawn_set

        drawn_set.ensure(cache, workers=2, observer=Console(), **runs.EYES)

    process = program.Process(draw, said, {"DR_CACHE": str(cache)})
    while not (children := _list_children(process.number)) and not process.ended():
        time.sleep(0.01)
    time.sleep(float(trial.rng.uniform(0, 2)))
    for child in children[-1:]:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            return
    need(process.wait() == 0, f"drawing ended so: {process.said()[-200:]!r}")
    for path in (runs.eyes(trial.kept / "cache") / "images").iterdir():
        same = (runs.eyes(cache) / "images" / path.name).read_bytes() == path.read_bytes()
        need(same, f"{path.name} is another picture")


def _list_children(number: int) -> list[int]:
    try:
        listed = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    except OSError:
        return []
    own = [int(child) for child in listed]
    return [c for c in own if b"spawn_main" in Path(f"/proc/{c}/cmdline").read_bytes()]
