"""A training that nothing happened to, and whether another one is its equal."""

import csv
import json
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from trials import Trial, need, program

OPTIONS = (
    "--size", 32, "--epochs", 2, "--batch-size", 7, "--optimizer", "sgd", "--name", "run",
    "--device", "cpu", "--precision", "fp32", "--quiet",
)  # fmt: skip
EYES = {"images": 36, "size": 64, "seed": 1}
TABLES = ("splits.csv", "predictions-val.csv", "predictions-test.csv")
MOVING = ("seconds", "images_per_second")  # columns of metrics.csv that time alone decides


def draw(cache: Path) -> Path:
    """The drawn eyes below `cache`; several processes draw them."""
    from dr_cli.sample import drawn_set

    return drawn_set.ensure(cache, workers=2, **EYES)


def eyes(cache: Path) -> Path:
    """Where `draw` draws them."""
    from dr_cli.sample import drawn_set

    own = EYES["images"], EYES["size"], EYES["seed"]
    return cache / "sample" / "-".join(map(str, (drawn_set.VERSION, *own)))


def train(
    trial: Trial, cache: Path, *more: object, within: program.Within = nullcontext, **env: str
) -> program.Process:
    """A training of `folder/runs/run` begun; the eyes are drawn first where they are not there."""
    where = {"DR_CACHE": str(cache), "DR_RUNS": str(trial.folder / "runs")}
    (trial.folder / "runs").mkdir(parents=True, exist_ok=True)

    @contextmanager
    def begin() -> Iterator[None]:
        with within():
            draw(cache)
            yield

    said, arguments = trial.folder / "said.txt", ("train", eyes(cache), *OPTIONS, *more)
    return program.start(*arguments, said=said, within=begin, **(where | env))


def resume(trial: Trial, cache: Path, *more: object) -> str:
    """The same training gone on with, or begun where no folder of it is there."""
    where = {"DR_CACHE": str(cache), "DR_RUNS": str(trial.folder / "runs")}
    said, run = trial.folder / "said-2.txt", trial.folder / "runs" / "run"
    if run.exists():
        return program.dr("train", "--resume", run, *more, "--quiet", said=said, **where)
    process = train(trial, cache)
    need(process.wait() == 0, f"a run begun anew ended so: {process.said().strip()[-300:]!r}")
    return process.said()


def reference(trial: Trial, *more: object) -> tuple[Path, float]:
    """The run that nothing happens to, made once for all trials, and the seconds that it took; its
    eyes were drawn before. more: further options, which make it another one."""
    cache, home = trial.kept / "cache", trial.kept / "".join(map(str, more))
    if not (trial.kept / "drawing").exists():
        drawing = program.Process(lambda: draw(cache), trial.folder / "drawn.txt", {})
        need(drawing.wait() == 0, f"no eyes were drawn: {drawing.said()[-300:]}")
        (trial.kept / "drawing").write_text(str(time.perf_counter() - drawing.begun))
    if not (took := home / "seconds").exists():
        process = train(Trial(trial.rng, home, trial.kept, 0), cache, *more)
        code = process.wait()
        seconds = time.perf_counter() - process.begun
        need(code == 0, f"the run without a fault ended with {code}: {process.said()[-300:]}")
        took.write_text(str(seconds))
    return home / "runs" / "run", float(took.read_text())


def drawing_seconds(trial: Trial) -> float:
    """What drawing the eyes took, of the reference."""
    return float((trial.kept / "drawing").read_text())


def need_equal(run: Path, reference: Path) -> None:
    """Lost where it is not, bit for bit but for times, what the reference is."""
    for name, read in READERS.items():
        same = read(run / name) == read(reference / name)
        need(same, f"{name} is another than that of an unbroken run")
    leftovers = sorted(path.name for path in run.rglob(".*"))
    need(not leftovers, f"left behind: {', '.join(leftovers)}")


def _read_metrics(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in MOVING} for row in csv.DictReader(file)]


def _read_figures(path: Path) -> Any:
    name = path.parent.name
    told = json.loads(path.read_text().replace(f'"{name}"', '"run"').replace(f' {name}"', ' run"'))
    for record in told.values():
        record["data"] = None  # where the cache is
    return told


def _read_weights(path: Path) -> Any:
    """The metadata's order changes from one writing to the next."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in sorted(file.keys())}
        return tensors, file.metadata()


READERS = {
    **dict.fromkeys(TABLES, Path.read_bytes),
    "model.safetensors": _read_weights,
    "metrics.csv": _read_metrics,
    "summary.json": _read_figures,
}


def need_whole(run: Path) -> None:
    """Lost where a file that stands in the run folder is not whole."""
    import numpy as np
    import PIL.Image
    import torch
    from safetensors.numpy import load_file

    readers = {
        ".json": lambda path: json.loads(path.read_text()),
        ".csv": lambda path: need(path.read_bytes().endswith(b"\n"), f"{path.name} is cut off"),
        ".pt": lambda path: torch.load(path, weights_only=True),
        ".safetensors": load_file,
        ".png": lambda path: PIL.Image.open(path).load(),
        ".npz": lambda path: np.load(path)["hashes"],
    }
    for path in sorted(run.rglob("*")):
        if path.name.startswith(".") or path.suffix not in readers:
            continue
        try:
            readers[path.suffix](path)
        except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
            need(False, f"{path.name} is not whole ({error})")


def copy_eyes(trial: Trial) -> Path:
    """A cache of the trial's own that holds the drawn eyes, and no crops."""
    cache = trial.folder / "cache"
    shutil.copytree(trial.kept / "cache" / "sample", cache / "sample")
    return cache
