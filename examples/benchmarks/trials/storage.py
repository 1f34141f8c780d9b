"""Disks that are full, read-only or gone, and files that rot on them."""

import errno
import itertools
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trials import Skipped, Trial, fault, need, program, runs
from trials.killed import go_on


@contextmanager
def disk(folder: Path, size: str) -> Iterator[None]:
    """A small disk in memory, mounted on `folder`. Skipped where this user may mount none."""
    folder.mkdir(parents=True)
    if (
        os.name == "nt"
        or os.geteuid() != 0
        or not _mount("-t", "tmpfs", "-o", f"size={size}", "t", folder)
    ):
        raise Skipped("only root mounts a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)


def _mount(*arguments: object) -> bool:
    done = subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True)
    return done.returncode == 0


def _need_one_line(said: str, words: str) -> None:
    """--quiet leaves warnings and the end's line alone."""
    lines = [line for line in said.strip().splitlines() if not line.startswith("warning: ")]
    need(len(lines) == 1 and lines[0].startswith("dr: "), f"not one line: {said[-300:]!r}")
    need(words in lines[0], f"{words!r} is not said: {lines[0]!r}")


@fault("the disk of the runs is full at a random size", tries=20)
def full(trial: Trial) -> None:
    """Mounted anew with room, what was saved is gone on with."""
    reference, _ = runs.reference(trial)
    home, size = trial.folder / "runs", int(trial.rng.uniform(1, 260))
    with disk(home, f"{size}m"):
        process = runs.train(trial, trial.kept / "cache")
        code, said = process.wait(), process.said()
        need(code in (0, 1), f"ended with {code}: {said[-300:]!r}")
        if code:
            _need_one_line(said, "No space left on device")
        _mount("-o", "remount,size=900m", home)
        go_on(trial, trial.kept / "cache", reference)


@fault("over quota from a random writing on", tries=12)
def quota(trial: Trial) -> None:
    """As a network drive tells it: where contents are written through."""
    reference, _ = runs.reference(trial)
    last = int(trial.rng.integers(60))

    @contextmanager
    def metered() -> Iterator[None]:
        real, calls = os.fsync, itertools.count()

        def fsync(number: int) -> None:
            if next(calls) >= last:
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            real(number)

        os.fsync = fsync
        yield

    process = runs.train(trial, trial.kept / "cache", "--save-every", 0, within=metered)
    code, said = process.wait(), process.said()
    need(code in (0, 1), f"ended with {code}: {said[-300:]!r}")
    if code:
        _need_one_line(said, os.strerror(errno.EDQUOT))
    go_on(trial, trial.kept / "cache", reference)


@fault("the disk of the runs is read-only from a random moment on", tries=12)
def read_only(trial: Trial) -> None:
    reference, seconds = runs.reference(trial)
    home = trial.folder / "runs"
    moment = 0.0 if trial.number == 0 else float(trial.rng.uniform(0, 0.8 * seconds))
    with disk(home, "900m"):
        if not moment:
            _mount("-o", "remount,ro", home)
        process = runs.train(trial, trial.kept / "cache", "--save-every", 0)
        while not process.ended():
            if time.perf_counter() - process.begun > moment and _mount("-o", "remount,ro", home):
                break
            time.sleep(0.01)
        code, said = process.wait(), process.said()
        need(code in (0, 1), f"ended with {code}: {said[-300:]!r}")
        if code:
            _need_one_line(said, "" if moment else "cannot be written to; set DR_RUNS")
        _mount("-o", "remount,rw", home)
        go_on(trial, trial.kept / "cache", reference)


@fault("a run folder that nobody may write, or whose name is too long", tries=20)
def refused(trial: Trial) -> None:
    """Before anything is decoded."""
    home = trial.folder / "runs"
    names = ("x" * 300, "run", "a/b", "..")
    name = names[trial.number % len(names)]
    home.mkdir(mode=0o555)
    for folder in (trial.folder, trial.folder.parent, trial.folder.parent.parent):
        if folder.stat().st_uid == os.getuid() and folder.name.startswith(("dr-faults", "tmp")):
            folder.chmod(0o755)

    @contextmanager
    def nobody() -> Iterator[None]:
        if name == "run" and os.geteuid() == 0:
            os.setuid(65534)
        yield

    process = program.start(
        "train", runs.eyes(trial.kept / "cache"), *runs.OPTIONS, "--name", name,
        said=trial.folder / "said.txt", within=nobody, DR_RUNS=str(home),
    )  # fmt: skip
    need(process.wait() in (1, 2), "it was not refused")
    _need_one_line(process.said(), "")
    need(not list(home.iterdir()), "something was made")


@fault("the run folder is removed at a random moment", tries=20)
def removed(trial: Trial) -> None:
    _, seconds = runs.reference(trial)
    run, moment = trial.folder / "runs" / "run", float(trial.rng.uniform(0, 0.6 * seconds))
    process = runs.train(trial, trial.kept / "cache")
    while not process.ended() and not (
        run.exists() and time.perf_counter() - process.begun > moment
    ):
        time.sleep(0.005)
    if process.ended():
        return
    gone = trial.folder / "gone"
    run.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
    code, said = process.wait(), process.said()
    need(code == 1, f"ended with {code}: {said[-300:]!r}")
    _need_one_line(said, "")
    left = sorted(path.name for path in run.rglob("*")) if run.exists() else []
    need(left in ([], ["log.txt"]), f"made anew, with {left}")


@fault("the disk of the cache is full", tries=12)
def full_cache(trial: Trial) -> None:
    """It goes on without a cache, says so, and to the same bits."""
    reference, _ = runs.reference(trial)
    cache = trial.folder / "cache"
    with disk(cache, "60k"):
        process = program.start(
            "train", runs.eyes(trial.kept / "cache"), *runs.OPTIONS, said=trial.folder / "said.txt",
            DR_CACHE=str(cache), DR_RUNS=str(trial.folder / "runs"),
        )  # fmt: skip
        code, said = process.wait(), process.said()
        need(code == 0, f"ended with {code}: {said[-300:]!r}")
        need("crops cannot be kept on disk" in said, "that there is no cache is not said")
        runs.need_equal(trial.folder / "runs" / "run", reference)


@fault("a bit of the cache rots", tries=12)
def rotten_cache(trial: Trial) -> None:
    """Wherever it lies, the run comes to the same bits."""
    reference, _ = runs.reference(trial)
    cache = trial.folder / "cache"
    shutil.copytree(trial.kept / "cache", cache, symlinks=True)
    eyes = runs.eyes(trial.kept / "cache")  # whose paths are in the keys
    shards = sorted(cache.rglob("*.crops"))
    need(shards, "there is no shard to spoil")
    shard = shards[int(trial.rng.integers(len(shards)))]
    content = bytearray(shard.read_bytes())
    content[int(trial.rng.integers(len(content)))] ^= 1 << int(trial.rng.integers(8))
    shard.write_bytes(content)
    where = {"DR_CACHE": str(cache), "DR_RUNS": str(trial.folder / "runs")}
    program.dr("train", eyes, *runs.OPTIONS, said=trial.folder / "said.txt", **where)
    runs.need_equal(trial.folder / "runs" / "run", reference)
    held = shard.read_bytes() if shard.exists() else b""
    need(held != bytes(content), "the spoilt shard is still there")


@fault("a shard of the cache is cut off while it is read", tries=12)
def cut_cache(trial: Trial) -> None:
    """What is mapped behind a file's end ends a process that looks at it; here it does not."""
    reference, seconds = runs.reference(trial)
    cache = runs.copy_eyes(trial)
    process = runs.train(trial, cache)
    while not (shards := list(cache.rglob("*.crops"))) and not process.ended():
        time.sleep(0.002)
    time.sleep(float(trial.rng.uniform(0, 0.5 * seconds)))
    for shard in shards:
        if shard.exists():
            os.truncate(shard, int(trial.rng.integers(shard.stat().st_size)))
    code, said = process.wait(), process.said()
    need(code == 0, f"ended with {code}: {said[-300:]!r}")
    runs.need_equal(trial.folder / "runs" / "run", reference)


@fault("a photograph is deleted, cut or replaced at a random moment", tries=12)
def rotten_photograph(trial: Trial) -> None:
    """Without a cache, so that every epoch reads it anew."""
    _, seconds = runs.reference(trial)
    eyes = trial.folder / "eyes"
    shutil.copytree(runs.eyes(trial.kept / "cache"), eyes)
    pictures = sorted((eyes / "images").iterdir())
    victim = pictures[int(trial.rng.integers(len(pictures)))]
    harm = ("deleted", "cut", "replaced")[trial.number % 3]

    @contextmanager
    def no_memory() -> Iterator[None]:
        from dr_cli import machine

        machine.free_memory = lambda: 1
        yield

    process = program.start(
        "train", eyes, *runs.OPTIONS, "--max-bad", 0.1, said=trial.folder / "said.txt",
        within=no_memory, DR_CACHE="/proc/nowhere", DR_RUNS=str(trial.folder / "runs"),
    )  # fmt: skip
    moment = float(trial.rng.uniform(0.2, 0.9) * seconds)
    while not process.ended() and time.perf_counter() - process.begun < moment:
        time.sleep(0.005)
    if harm == "deleted":
        victim.unlink()
    else:
        content = victim.read_bytes()
        victim.write_bytes(content[: len(content) // 3] if harm == "cut" else b"no picture" * 99)
    code, said = process.wait(), process.said()
    need(code == 0, f"{harm}: ended with {code}: {said[-300:]!r}")
    run = trial.folder / "runs" / "run"
    runs.need_whole(run)
    listed = (
        f"images/{victim.name}" if "images/" in (run / "splits.csv").read_text() else victim.name
    )
    (row,) = [
        r for r in (run / "splits.csv").read_text().splitlines() if r.startswith(f"{listed},")
    ]
    graded = "".join((run / f"predictions-{s}.csv").read_text() for s in ("val", "test"))
    need("unreadable" not in said or "lost while it trained" in row, f"not listed: {row}")
    need("lost while it trained" not in row or listed not in graded, "a lost one has a prediction")


@fault("something else in the place of a number, a tensor or a table of last.pt", tries=60)
def state(trial: Trial) -> None:
    """Gone on with, or refused in a line; the process ends by itself."""
    import torch

    _begin_run(trial)
    run = Path(shutil.copytree(trial.kept / "begun", trial.folder / "runs" / "run"))
    held = torch.load(run / "last.pt", weights_only=True)
    spot = held
    while isinstance(spot, dict | list) and spot:  # the first steps down lead everywhere alike
        inside, keys = spot, list(spot) if isinstance(spot, dict) else list(range(len(spot)))
        key = keys[int(trial.rng.integers(len(keys)))]
        spot = inside[key]
        if trial.rng.random() < 0.1:
            break
    others = [
        torch.zeros(2), torch.zeros(1).expand(10**6), torch.zeros(3, dtype=torch.int64), None, "x",
        -1, 10**30, float("nan"), {}, [], [[]], {"a": 1}, True, 0,
    ]  # fmt: skip
    inside[key] = others[int(trial.rng.integers(len(others)))]
    torch.save(held, run / "last.pt")
    process = program.start(
        "train", "--resume", run, "--quiet", said=trial.folder / "said.txt",
        DR_CACHE=str(trial.kept / "cache"),
    )  # fmt: skip
    code, said = process.wait(), process.said()
    need(
        code in (0, 1, 2), f"ended with {code}, {key!r} being {inside[key]!r:.60}: {said[-300:]!r}"
    )
    fine = "Traceback" not in said and "a fault of dr's own" not in said
    need(fine, f"{key!r} being {inside[key]!r:.60}: {said[-300:]!r}")


def _begin_run(trial: Trial) -> None:
    """A run that was killed in its second epoch, made once: `kept/begun`."""
    if (trial.kept / "begun").exists():
        return
    runs.reference(trial)
    process = runs.train(trial, trial.kept / "cache", "--save-every", 0)
    run = trial.folder / "runs" / "run"
    while not (run / "metrics.csv").exists() and not process.ended():
        time.sleep(0.002)
    process.signal(signal.SIGKILL)
    process.wait()
    need((run / "last.pt").exists(), f"no run to spoil: {process.said()[-300:]!r}")
    run.rename(trial.kept / "begun")
