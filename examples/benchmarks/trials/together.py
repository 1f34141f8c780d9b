"""Several processes at once, and runs that must come to the same bits."""

import itertools
import os
import signal
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trials import Trial, fault, need, program, runs


@fault("two trainings begin at once, in one folder, on one empty cache", tries=12)
def twins(trial: Trial) -> None:
    reference, _ = runs.reference(trial)
    eyes = runs.eyes(runs.copy_eyes(trial))
    where = {"DR_CACHE": str(trial.folder / "cache"), "DR_RUNS": str(trial.folder / "runs")}
    options = [*runs.OPTIONS]
    at = options.index("--name")
    del options[at : at + 2]
    pair = [
        program.start("train", eyes, *options, said=trial.folder / f"said-{k}.txt", **where)
        for k in range(2)
    ]
    for process in pair:
        code = process.wait()
        need(code == 0, f"one ended with {code}: {process.said()[-300:]!r}")
    made = sorted(path.name for path in (trial.folder / "runs").iterdir())
    need(made == ["resnet18", "resnet18-2"], f"they made {made}")
    for name in made:
        runs.need_equal(trial.folder / "runs" / name, reference)


@fault("two builders fill one empty cache; of every second pair one is killed", tries=20)
def builders(trial: Trial) -> None:
    """Both have the crops as they are decoded, each of which stands in the cache once."""
    runs.reference(trial)
    photographs, cache = runs.eyes(trial.kept / "cache") / "images", trial.folder / "cache"

    def build() -> None:
        from dr_cli.photographs import cache as kept
        from dr_cli.photographs.crop import Preprocessing

        kept._rows_a_shard = lambda count, size: 5
        names = sorted(path.name for path in photographs.iterdir())
        crops = kept.Crops(photographs, names, Preprocessing(64), 1)
        crops.fill()
        print(crops.kept, zlib.crc32(crops.gather(range(len(names)))))

    def start(name: str, **more: str) -> program.Process:
        env = {"DR_CACHE": str(cache)} | more
        return program.Process(build, trial.folder / f"{name}.txt", env)

    wanted = start("alone", DR_CACHE_MAX="0")
    need(wanted.wait() == 0, f"no crops without a cache: {wanted.said()[-300:]!r}")
    one, other = start("one"), start("other")
    if trial.number % 2:
        time.sleep(float(trial.rng.uniform(0, 0.6)))
        one.signal(signal.SIGKILL)
    code = one.wait()
    need(code == 0 or trial.number % 2, f"one ended with {code}: {one.said()[-300:]!r}")
    need(other.wait() == 0, f"the other ended so: {other.said()[-300:]!r}")
    told = other.said().split()
    need(told == ["disk", wanted.said().split()[1]], f"the other has {told}")
    need(trial.number % 2 or one.said() == other.said(), "they have not the same crops")
    held = [shard.stat().st_size // (3 * 64**2) for shard in cache.rglob("*.crops")]
    need(sum(held) == runs.EYES["images"], f"{sum(held)} crops in the cache")


@fault("a run that is being trained is resumed, reported and predicted with", tries=12)
def looked_at(trial: Trial) -> None:
    """The second is refused, the others work or say in a line what is not there yet."""
    reference, _ = runs.reference(trial)
    run, eyes = trial.folder / "runs" / "run", runs.eyes(trial.kept / "cache")
    process = runs.train(trial, trial.kept / "cache", "--save-every", 0)
    while not run.exists() and not process.ended():
        time.sleep(0.01)
    asked = {
        "resume": ("train", "--resume", run),
        "report": ("report", run.parent, reference, "--out", trial.folder / "page.html"),
        "predict": ("predict", eyes / "images", "--run", run, "--format", "csv"),
        "eval": ("eval", run, "--format", "json"),
    }
    others = {
        name: program.start(*command, said=trial.folder / f"{name}.txt", DR_CACHE=os.devnull)
        for name, command in asked.items()
    }
    for name, other in others.items():
        code, said = other.wait(), other.said()
        need(code in (0, 1, 2) and "Traceback" not in said, f"{name}: {code}, {said[-200:]!r}")
        if name == "resume":
            need("being trained by another process" in said, f"resumed: {said[-200:]!r}")
    need(process.wait() == 0, f"the training ended so: {process.said()[-300:]!r}")
    runs.need_equal(run, reference)


@fault("DR_CACHE_MAX evicts crops that a training reads", tries=12)
def evicted(trial: Trial) -> None:
    reference, _ = runs.reference(trial)
    cache = runs.copy_eyes(trial)
    process = runs.train(trial, cache)
    shards = cache / "crops"
    while not list(shards.rglob("*.crops")) and not process.ended():
        time.sleep(0.01)
    code = program.start(
        "train", runs.eyes(cache), "--size", 48, "--epochs", 1, "--name", "other", "--quiet",
        said=trial.folder / "other.txt", DR_CACHE=str(cache), DR_CACHE_MAX="300k",
        DR_RUNS=str(trial.folder / "others"),
    ).wait()  # fmt: skip
    need(code == 0, "the run that evicts did not end well")
    need(process.wait() == 0, f"the reader ended so: {process.said()[-300:]!r}")
    runs.need_equal(trial.folder / "runs" / "run", reference)


@fault("another number of workers", tries=12)
def workers(trial: Trial) -> None:
    reference, _ = runs.reference(trial)
    cache = runs.copy_eyes(trial)
    process = runs.train(trial, cache, "--workers", 1 + trial.number * 2)
    need(process.wait() == 0, f"it ended so: {process.said()[-300:]!r}")
    runs.need_equal(trial.folder / "runs" / "run", reference)


@fault("a loss that is no number", tries=20)
def diverged(trial: Trial) -> None:
    rate = 10.0 ** float(trial.rng.uniform(18, 30))
    process = runs.train(trial, trial.kept / "cache", "--lr", rate, "--save-every", 0)
    code, said = process.wait(), process.said()
    need(code == 1, f"ended with {code}")
    need("the loss is" in said and ".jpg" in said and "--lr" in said, f"it said {said[-300:]!r}")
    runs.need_whole(trial.folder / "runs" / "run")


@fault("a loss that is no number from a random step on, and a smaller --lr", tries=12)
def slowed(trial: Trial) -> None:
    """As long as the rate is what it was; gone on with by another, the run comes to its end."""
    runs.reference(trial)
    bad = int(trial.rng.integers(1, 8))

    @contextmanager
    def diverging() -> Iterator[None]:
        from dr_cli.training.learner import Learner

        real, steps = Learner.step, itertools.count(1)

        def step(self, *batch, **more):
            loss, hits = real(self, *batch, **more)
            return loss * (float("nan") if next(steps) >= bad else 1), hits

        Learner.step = step
        yield

    process = runs.train(trial, trial.kept / "cache", "--save-every", 0, within=diverging)
    code, said, run = process.wait(), process.said(), trial.folder / "runs" / "run"
    need(code == 1 or bad > 6, f"ended with {code}: {said[-300:]!r}")
    if code:
        way = f"go on with: dr train --resume {run} --lr 0.003"
        need(way in said, f"no way on: {said[-300:]!r}")
        runs.resume(trial, trial.kept / "cache", "--lr", 0.003)
    runs.need_whole(run)
    need((run / "summary.json").exists(), "it is not finished")


@fault("memory runs out at a random size", tries=20)
def memory(trial: Trial) -> None:
    """A limit of address space, from what is loaded already up to what is enough."""
    import resource

    @contextmanager
    def limited():
        from dr_cli import machine

        machine.free_memory = lambda: None
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        room = int(trial.rng.uniform(300, 2500)) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (held + room, held + room))
        yield

    runs.reference(trial)
    run = trial.folder / "runs" / "run"
    process = program.start(
        "train", runs.eyes(trial.kept / "cache"), *runs.OPTIONS, "--batch-size", 24, "--size", 96,
        said=trial.folder / "said.txt", within=limited, DR_CACHE=str(trial.folder / "cache"),
        DR_RUNS=str(run.parent),
    )  # fmt: skip
    code, said = process.wait(), process.said()
    if run.exists():
        runs.need_whole(run)
    need(code in (0, 1) and "Traceback" not in said, f"ended with {code}: {said[-300:]!r}")
    need(code == 0 or "memory" in said, f"memory is not named: {said[-300:]!r}")
