"""The run folder: every file name and format of it. Files appear whole or not at all.

    config.json  splits.csv  metrics.csv  model.safetensors  last.pt
    predictions-{val,test}.csv  pictures.json  summary.json
    confusion.png  curves.png  log.txt

Free of pandas at import, because `predict` passes through here.
"""

import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr_cli.errors import DrError, UsageError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = 1
MODEL = "model.safetensors"
METRICS = (
    "epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_qwk",
    "test_accuracy", "test_qwk", "seconds", "images_per_second",
)  # fmt: skip
SPLITS = ("path", "grade", "patient", "eye", "split", "reason")
PREDICTIONS = (
    "path", "grade", "patient", "eye", "p0", "p1", "p2", "p3", "p4", "predicted", "gradable",
)  # fmt: skip


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner reads
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """UTF-8, line ends as they are."""
    with whole(path) as aside:
        aside.write_bytes(text.encode("utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Indented JSON; NaN is refused (an undefined figure is null)."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a header; None is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


class Run:
    """A folder that a training run fills and everything else reads."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.name = self.folder.resolve().name

    def __getitem__(self, name: str) -> Path:
        return self.folder / name

    @property
    def finished(self) -> bool:
        """A finished run is one that has summary.json."""
        return self["summary.json"].is_file()

    def read_json(self, name: str) -> Any:
        """config.json, summary.json, pictures.json. UsageError where it is not there or no JSON."""
        try:
            return json.loads(self[name].read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(
                f"{self.folder} has no {name}: it is no "
                f"{'finished ' if name == 'summary.json' else ''}run of dr train"
            ) from None
        except (OSError, ValueError) as error:
            raise UsageError(f"{self[name]} cannot be read: {error}") from error

    def read_list(self, name: str) -> list[dict[str, Any]]:
        """pictures.json; empty where there is none."""
        return self.read_json(name) if self[name].is_file() else []

    def predictions(self, split: str) -> "pd.DataFrame":
        """predictions-<split>.csv. Raises UsageError where the run has none."""
        return self._table(f"predictions-{split}.csv")

    def splits(self) -> "pd.DataFrame":
        """splits.csv, every row of the data set with its split or the reason why it has none."""
        return self._table("splits.csv")

    def metrics(self) -> list[dict[str, str]]:
        """metrics.csv, a dictionary an epoch."""
        with self["metrics.csv"].open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    def networks(self) -> list[Path]:
        """The folders that hold its weights: itself, or the folds of a cross-validation."""
        folds = sorted(path.parent for path in self.folder.glob(f"fold-*/{MODEL}"))
        return [self.folder] if self[MODEL].is_file() or not folds else folds

    def chosen(self) -> dict[str, Any]:
        """Decision, temperature, operating point: of its weights, or pooled over its folds."""
        if self[MODEL].is_file():
            return model_record(self.folder)
        chosen = self.read_json("config.json").get("chosen")
        return model_record(self.folder) if chosen is None else chosen

    def has(self, split: str) -> bool:
        """Whether the run predicted this split."""
        return self[f"predictions-{split}.csv"].is_file()

    def _table(self, name: str) -> "pd.DataFrame":
        import pandas as pd

        if not self[name].is_file():
            raise UsageError(f"{self.folder} has no {name}: no finished run of dr train")
        texts = {"path": "str", "patient": "str", "eye": "str", "split": "str", "reason": "str"}
        return pd.read_csv(self[name], dtype=texts, keep_default_na=False, na_values=[""])

    def save_model(self, tensors: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        """Weights with all that `predict` must know in the file's own metadata (strings)."""
        from safetensors.torch import save_file

        metadata = {key: json.dumps(value) for key, value in record.items()}
        with whole(self[MODEL]) as aside:
            save_file({k: v.contiguous() for k, v in tensors.items()}, aside, metadata)

    def write_table(self, name: str, columns: Sequence[str], table: "pd.DataFrame") -> None:
        """splits.csv or a predictions file, from a table that has these columns."""
        text = table.loc[:, list(columns)].to_csv(index=False, lineterminator="\n")
        write_text(self[name], text)


def read_model(source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and record of a `model.safetensors`, or of the run folder that has one.

    Raises UsageError where there is none, or it was not made by `dr train`.
    """
    from safetensors import safe_open

    record = model_record(source)
    path = source / MODEL if source.is_dir() else source
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, record  # noqa: SIM118


def model_record(source: Path) -> dict[str, Any]:
    """What `read_model` says beside the tensors, without reading those. Raises as it does."""
    from safetensors import SafetensorError, safe_open

    path = source / MODEL if source.is_dir() else source
    if not path.is_file():
        known = "it has no weights" if source.is_dir() else "no such file or folder"
        raise UsageError(f"{source}: {known}; name a run folder of dr train or its {MODEL}")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        record = {key: json.loads(value) for key, value in metadata.items()}
    except (SafetensorError, ValueError, OSError) as error:
        raise UsageError(f"{path} is no whole safetensors file of dr: {error}") from error
    missing = {"arch", "preprocessing", "decision", "temperature"} - record.keys()
    if missing:
        raise UsageError(
            f"{path} is no grader: its metadata lacks {', '.join(sorted(missing))}; "
            "as a start for training it can be given to dr train --weights"
        )
    return record


def finished_runs(folder: Path) -> list[Run]:
    """The finished runs in a folder of runs, oldest first."""
    summaries = sorted(folder.glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    return [Run(path.parent) for path in summaries]


def check_name(root: Path, name: str | None) -> None:
    """Raises UsageError where `name` exists in `root` or is no plain folder name."""
    if name is None:
        return
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise UsageError(f"--name {name!r} is no plain folder name; $DR_RUNS says where runs go")
    if (root / name).exists():
        raise UsageError(f"{root / name} exists: choose another --name, or --resume it")


def new_run(root: Path, name: str | None, default: str) -> Run:
    """Makes the folder of a new run: `name`, or the next free one of `default`, `default-2`, ….

    Raises UsageError as `check_name` does, DrError where no folder can be made.
    """
    check_name(root, name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        if name is not None:
            (root / name).mkdir()
            return Run(root / name)
        for k in range(1, 10_000):  # mkdir decides: two processes never share a folder
            try:
                folder = root / (default if k == 1 else f"{default}-{k}")
                folder.mkdir()
                return Run(folder)
            except FileExistsError:
                continue
    except OSError as error:
        raise DrError(f"{root}: no run folder can be made: {error.strerror or error}") from error
    raise DrError(f"{root} holds 10,000 runs named {default}: give a --name")
