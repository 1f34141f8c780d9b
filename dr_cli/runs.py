"""The run folder: every file name and format of it, one writer and one reader.

    config.json  splits.csv  hashes.npz  metrics.csv  model.safetensors  last.pt
    predictions-{val,test}.csv  pictures.json  summary.json
    confusion.png  curves.png  log.txt

Files appear whole or not at all (`writing`). Free of pandas, torch and numpy at import, because
`predict` and `dr --help` pass through here.
"""

import csv
import io
import json
import math
import os
import re
import secrets
import shlex
import shutil
import stat
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr_cli.errors import DrError, UsageError, WriteError
from dr_cli.formulas import defuse_table, plain_table
from dr_cli.writing import sweep, sync, whole, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from dr_cli.grades import Calibration

SCHEMA = 1
MOST_JSON = 100_000_000  # bytes of a record; the largest, pictures.json, takes some 3 MB
MODEL = "model.safetensors"
LAUNCH = ".launch"  # what several processes find the run again by, once torchrun starts them anew
SAMPLE_FOLDER = re.compile(r"[/\\]sample[/\\][^/\\]+$")  # where the cache keeps drawn eyes
METRICS = (
    "epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_qwk",
    "test_accuracy", "test_qwk", "seconds", "images_per_second",
)  # fmt: skip
SPLITS = ("path", "grade", "patient", "eye", "split", "reason")
FURTHER = ("left_out_of", "duplicates")  # of splits.csv; runs of before had neither
PREDICTIONS = (
    "path", "grade", "patient", "eye", "p0", "p1", "p2", "p3", "p4", "predicted", "gradable",
)  # fmt: skip

CHANGEABLE = ("lr", "precision")  # what --resume may change of what decides the result

# What a record that dr did not write raises where it is taken for one.
_FOREIGN = (KeyError, TypeError, ValueError, AttributeError, RecursionError, OSError)


@dataclass(frozen=True)
class TrainedOn:
    """What a network learned from; it travels with the weights."""

    name: str
    """The data set's folder, or "drawn eyes"."""
    fingerprint: str
    drawn: bool
    """Whether it has seen eyes drawn by a program alone, and no photograph."""

    def __post_init__(self) -> None:
        """Raises TypeError where a name is no text: weights come from outside."""
        if not _is_text(self.name) or not _is_text(self.fingerprint):
            raise TypeError("trained_on")


@dataclass(frozen=True)
class DataRecord:
    """Which data set a run saw."""

    root: str
    """The folder that paths are relative to, absolute."""
    source: str
    """What was read: that folder, or a table in it."""
    layout: str
    columns: Mapping[str, str]
    """The names of the table's columns that a person gave, by "image", "grade", …; and
    "grade_map", what its grades mean."""
    fingerprint: str
    left_out: Mapping[str, int]
    """Reason -> rows."""
    drawn: bool = False
    """Whether its eyes are drawn by a program: see `dr_cli.sample.mark`."""

    def __post_init__(self) -> None:
        """Raises TypeError where a name is no text: config.json comes from outside."""
        texts = (self.root, self.source, self.layout, self.fingerprint, *self.columns.values())
        if not all(map(_is_text, (*texts, *self.left_out))) or type(self.drawn) is not bool:
            raise TypeError("data")

    @property
    def trained_on(self) -> TrainedOn:
        """What the run's weights say of it."""
        name = "drawn eyes" if self.drawn else re.split(r"[/\\]", self.root.rstrip("/\\"))[-1]
        return TrainedOn(name, self.fingerprint, self.drawn)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> "DataRecord":
        """As config.json holds it; runs that do not say tell drawn eyes by where the cache kept
        them."""
        kept = SAMPLE_FOLDER.search(record["root"]) is not None
        return cls(**{"drawn": kept, **record})


@dataclass(frozen=True)
class RunConfig:
    """config.json: every option that decides the result, and what the run was made on and with."""

    options: Mapping[str, Any]
    """As `TrainConfig.to_dict` gives them."""
    fold: int | None
    """Of a cross-validation's runs the one that is held out, from 1; None for any other."""
    preprocessing: Mapping[str, Any]
    parameters: int
    multiply_adds: int
    data: DataRecord
    versions: Mapping[str, str]
    device: str
    precision: str
    threads: int
    schema: int = SCHEMA
    chosen: "Calibration | None" = None
    """Of a run made of runs what stands for the members' own choices."""
    member: str | None = None
    """Of a run within a run its folder: "fold-1", "seed-0"; runs of before do not say."""
    start: Mapping[str, int] | None = None
    """How many of its "test" images the run that --weights names has learned from or was chosen
    on, and how many of its "val" images it has learned from; None where that is not known."""
    drawn_start: Mapping[str, Any] | None = None
    """Of --start drawn: how its weights were made, and their figures on drawn eyes."""
    changes: Sequence[Mapping[str, Any]] = field(default_factory=list)
    """What --resume changed of what decides the result: {"after_epoch", "option", "from", "to"}."""

    @property
    def picked_on_test(self) -> bool:
        """Whether test was validation, too (--val test)."""
        return self.options["val"] == "test"

    def to_record(self) -> dict[str, Any]:
        """The contents of config.json."""
        record = {"schema": self.schema} | asdict(self)
        del record["chosen"]
        return record | ({"chosen": self.chosen.to_record()} if self.chosen else {})

    @classmethod
    def from_record(cls, record: Any, where: Path) -> "RunConfig":
        """The inverse of `to_record`. UsageError naming `where` for anything else."""
        from dr_cli.grades import Calibration

        try:
            if record["schema"] > SCHEMA:
                raise UsageError(f"{where} was written by a newer dr (schema {record['schema']})")
            data, options = DataRecord.from_record(record["data"]), dict(record["options"])
            if not isinstance(options["val"], str):
                raise TypeError("val")
            chosen = record.get("chosen") and Calibration.from_record(record["chosen"])
            made = cls(**(record | {"data": data, "options": options, "chosen": chosen}))
            made.to_record()  # what is too deep to be copied is too deep to be used
            return made
        except _FOREIGN as error:
            raise UsageError(f"{where} is not as dr train wrote it: train a new run") from error

    def __post_init__(self) -> None:
        """Raises TypeError where a number is none: config.json comes from outside."""
        numbers = [self.schema, self.parameters, self.multiply_adds, self.threads]
        records = (self.preprocessing, self.start or {}, self.drawn_start or {})
        if not all(isinstance(record, Mapping) for record in records):
            raise TypeError("config.json")
        numbers += [*(self.start or {}).values(), self.fold or 0]
        texts = (self.device, self.precision, self.member or "", *self.versions.values())
        for change in self.changes:
            if change["option"] not in CHANGEABLE or {"from", "to"} - change.keys():
                raise TypeError("changes")
            numbers.append(change["after_epoch"])
        if not all(type(one) is int for one in numbers) or not all(map(_is_text, texts)):
            raise TypeError("config.json")


@dataclass(frozen=True)
class ModelRecord:
    """What stands with the weights and makes them a grader."""

    arch: str
    preprocessing: Mapping[str, Any]
    """What the pixels go through, as `Preprocessing.to_dict` gives it."""
    calibration: "Calibration"
    epoch: int | None = None
    """The one that was kept, from 1."""
    trained_on: TrainedOn | None = None
    """None where neither the weights nor a config.json beside them say."""
    familiar: Mapping[str, Any] | None = None
    """What photographs were learned from, as `Familiar.to_record` gives it; None in weights of
    before, and where too few were."""

    def to_metadata(self) -> dict[str, str]:
        """As model.safetensors holds it: JSON, a text a key."""
        from dr_cli.grades import NAMES

        record = {
            "schema": SCHEMA,
            "arch": self.arch,
            "grades": list(NAMES),
            "size": self.preprocessing["size"],
            "preprocessing": dict(self.preprocessing),
            **self.calibration.to_record(),
            "epoch": self.epoch,
            "trained_on": self.trained_on and asdict(self.trained_on),
        }
        record |= {"familiar": self.familiar} if self.familiar else {}
        return {key: json.dumps(value) for key, value in record.items()}


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

    @contextmanager
    def hold(self) -> Iterator[None]:
        """For a block the run is this process's alone; what killed ones left aside is swept.

        Raises UsageError where another process trains it, and where what is written there would
        land elsewhere: a link in it leads out. The system frees the lock of a process
        that dies; on a drive without locks there is none.
        """
        from filelock import FileLock, Timeout

        if out := self._find_link_out():
            raise UsageError(f"{out} is a link that leads out of the run: put what it means there")
        lock = FileLock(self[".lock"], fallback_to_soft=False)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise UsageError(f"{self.folder} is being trained by another process") from None
        except OSError:
            pass
        try:
            sweep(self.folder)
            yield
        finally:
            with suppress(OSError):  # FileLock refuses whoever opened it before it was removed
                self[".lock"].unlink(missing_ok=True)
            lock.release()

    def _find_link_out(self) -> Path | None:
        home = os.path.realpath(self.folder) + os.sep
        links = (path for path in self.folder.rglob("*") if path.is_symlink())
        return next((path for path in links if not os.path.realpath(path).startswith(home)), None)

    def tell_way_on(self) -> str:
        """What a person types to go on with it."""
        further = " --epochs N" if self.finished else ""
        return f"go on with: dr train --resume {shlex.quote(str(self.folder))}{further}"

    def _read_json(self, name: str) -> Any:
        """One of its JSON files. UsageError where it is not there or no JSON."""
        try:
            found = self[name].stat()
            if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for without end
                raise ValueError("it is no file")
            if found.st_size > MOST_JSON:
                raise ValueError(f"it is too large, {found.st_size / 1e6:,.0f} MB")
            return _parse(self[name].read_text(encoding="utf-8"))
        except FileNotFoundError:
            if not self.folder.exists():
                raise UsageError(f"{self.folder}: no such folder; name a run of dr train") from None
            kind = "finished run" if name == "summary.json" else "run"
            raise UsageError(f"{self.folder} has no {name}: it is no {kind} of dr train") from None
        except (OSError, ValueError, RecursionError) as error:
            raise UsageError(f"{self[name]} cannot be read: {error}") from error

    def config(self) -> RunConfig:
        """config.json. UsageError where it is not there, or not as `dr train` wrote it."""
        return RunConfig.from_record(self._read_json("config.json"), self["config.json"])

    def summary(self) -> dict[str, Any]:
        """summary.json: "val", "test" -> what `dr eval` prints. UsageError where it has neither."""
        found = self._read_json("summary.json")
        if not isinstance(found, dict) or not any(found.get(split) for split in ("val", "test")):
            raise UsageError(f"{self['summary.json']}: neither test nor val in it; train it again")
        return found

    def pictures(self) -> list[dict[str, Any]]:
        """pictures.json; empty where there is none."""
        return self._read_json("pictures.json") if self["pictures.json"].is_file() else []

    def predictions(self, split: str) -> "pd.DataFrame":
        """predictions-<split>.csv. Raises UsageError where the run has none, or no such table."""
        return self._table(f"predictions-{split}.csv", PREDICTIONS)

    def splits(self) -> "pd.DataFrame":
        """splits.csv, every row of the data set with its split or the reason why it has none.

        `left_out_of`: the split that the data set names for a row without one; `duplicates`: the
        same number for photographs alike, empty for one that has no double. A run of before has
        neither column.
        Raises as `predictions`, and for a cell that is no split, no grade or no number.
        """
        import pandas as pd

        from dr_cli.grades import NUM_GRADES

        table = self._table("splits.csv", SPLITS)
        placed = table["split"].notna()
        self._need("split", table, ~placed | table["split"].isin(("train", "val", "test")))
        grade = pd.to_numeric(table["grade"], errors="coerce")
        self._need("grade", table, ~placed | grade.isin(range(NUM_GRADES)))
        table["grade"] = grade.where(grade.isin(range(NUM_GRADES)), -1).astype("int64")
        if "duplicates" in table:
            given, number = table["duplicates"], pd.to_numeric(table["duplicates"], errors="coerce")
            self._need("duplicates", table, given.isna() | ((number >= 0) & (number % 1 == 0)))
            table["duplicates"] = number
        return table

    def _need(self, column: str, table: "pd.DataFrame", well: "pd.Series") -> None:
        """UsageError naming the first cell of splits.csv that is not well."""
        if well.all():
            return
        place = int(well.to_numpy(bool).argmin())
        found = table[column].iloc[place]
        raise UsageError(
            f"{self['splits.csv']}, row {place + 2}, column {column}: {found!r} is not as dr train "
            "writes it"
        )

    def write_hashes(self, hashes: "NDArray[Any]", version: int) -> None:
        """hashes.npz: what its photographs are known again by, a row a row of splits.csv."""
        import numpy as np

        with whole(self["hashes.npz"]) as aside:
            np.savez(aside, hashes=hashes, version=version)

    def hashes(self, version: int) -> "NDArray[Any] | None":
        """hashes.npz; None where the run kept none, as runs of before, or those of another version.

        Raises UsageError where the file cannot be read.
        """
        import numpy as np

        if not self["hashes.npz"].is_file():
            return None
        try:
            with np.load(self["hashes.npz"], allow_pickle=False) as kept:
                return kept["hashes"] if kept["version"] == version else None
        except (*_FOREIGN, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise UsageError(f"{self['hashes.npz']} cannot be read: {error}") from error

    def history(self) -> list[dict[str, float | None]]:
        """metrics.csv, a dictionary an epoch; None for an empty field, nan or infinity."""
        try:
            if self["metrics.csv"].exists() and not self["metrics.csv"].is_file():
                raise OSError("it is no file")
            with self["metrics.csv"].open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise UsageError(f"{self['metrics.csv']} cannot be read: {error}") from error
        return [{name: _finite(text) for name, text in row.items()} for row in rows]

    def networks(self) -> list[Path]:
        """The folders that hold its weights: itself, or its members, folds or seeds."""
        return self.folds() or self.seeds() or [self.folder]

    def folds(self) -> list[Path]:
        """The folders of its folds, by number; none of a run that is no cross-validation."""
        return [] if self[MODEL].is_file() else self._find("fold")

    def seeds(self) -> list[Path]:
        """The folders of its seeds, by number; none of a run that is not made of several."""
        return [] if self[MODEL].is_file() else self._find("seed")

    def _find(self, kind: str) -> list[Path]:
        found = [path.parent for path in self.folder.glob(f"{kind}-*/{MODEL}")]
        return sorted(found, key=lambda path: (len(path.name), path.name))

    def calibration(self) -> "Calibration":
        """What was chosen on its validation images, or pooled over its members."""
        if not self[MODEL].is_file() and (chosen := self.config().chosen):
            return chosen
        return read_record(self.folder).calibration

    def epoch(self) -> int | None:
        """The epoch whose weights were kept, from 1; None of a cross-validation, which has many."""
        return read_record(self.folder).epoch if self[MODEL].is_file() else None

    def has(self, split: str) -> bool:
        """Whether the run predicted this split."""
        return self[f"predictions-{split}.csv"].is_file()

    def _table(self, name: str, columns: Sequence[str]) -> "pd.DataFrame":
        import pandas as pd

        if not self[name].is_file():
            raise UsageError(f"{self.folder} has no {name}: no finished run of dr train")
        texts = dict.fromkeys(("path", "patient", "eye", "split", "reason", "left_out_of"), "str")
        try:
            raw = self[name].read_bytes()
            table = pd.read_csv(io.BytesIO(raw), dtype=texts, keep_default_na=False, na_values=[""])
            table = plain_table(table, raw)
        except (OSError, ValueError) as error:  # pandas' own are ValueErrors
            raise UsageError(f"{self[name]} cannot be read: {str(error).strip()}") from error
        if missing := [column for column in columns if column not in table]:
            raise UsageError(f"{self[name]} has no column {', '.join(missing)}: train it again")
        return table

    def save_model(self, tensors: Mapping[str, Any], record: ModelRecord) -> None:
        """Weights with all that `predict` must know in the file's own metadata."""
        from safetensors.torch import save_file

        with whole(self[MODEL]) as aside:
            save_file({k: v.contiguous() for k, v in tensors.items()}, aside, record.to_metadata())

    def write_config(self, config: RunConfig) -> None:
        """config.json."""
        write_json(self["config.json"], config.to_record())

    def write_table(self, name: str, columns: Sequence[str], table: "pd.DataFrame") -> None:
        """splits.csv or a predictions file, from a table that has these columns."""
        shown = defuse_table(table.loc[:, list(columns)])
        text = shown.to_csv(index=False, lineterminator="\n")
        if "\r" in text:  # before Python 3.13 a cell that holds one alone is not quoted, and is two
            text = shown.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        write_text(self[name], text)


def counted_split(summary: Mapping[str, Any]) -> str:
    """The split whose figures count, of those that `Run.summary` holds: test, else val."""
    return "test" if summary.get("test") else "val"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _parse(text: str) -> Any:
    """A JSON text; NaN and infinity are None. Raises ValueError, RecursionError."""
    value = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
    if re.search(r"\\u[dD][89a-fA-F]", text):  # half of a pair is no text, and ends no file
        json.dumps(value, ensure_ascii=False).encode()
    return value


def _finite(text: str | None) -> float | None:
    try:
        value = float(text or "nan")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def read_model(source: Path) -> tuple[dict[str, Any], ModelRecord]:
    """Tensors and record of a `model.safetensors`, or of the run folder that has one.

    Raises UsageError where there is none, it was not made by `dr train`, or holds NaN.
    """
    from safetensors.torch import load_file

    record = read_record(source)
    tensors = load_file(_model_file(source))
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise UsageError(f"{_model_file(source)} holds numbers that are not finite, in {name}")
    return tensors, record


def read_record(source: Path) -> ModelRecord:
    """What `read_model` says beside the tensors, without reading those. Raises as it does."""
    from safetensors import SafetensorError, safe_open

    from dr_cli.grades import Calibration

    path = _model_file(source)
    if not path.is_file():
        known = "it has no weights" if source.is_dir() else "no such file or folder"
        raise UsageError(f"{source}: {known}; name a run folder of dr train or its {MODEL}")
    try:
        with safe_open(path, "np") as file:  # "pt" would load torch for it
            metadata = file.metadata() or {}
        record = {key: _parse(value) for key, value in metadata.items()}
        if record.get("schema", SCHEMA) > SCHEMA:
            raise UsageError(f"{path} was written by a newer dr (schema {record['schema']})")
        missing = {"arch", "preprocessing", "decision", "temperature"} - record.keys()
        if missing:
            raise UsageError(
                f"{path} is no grader: its metadata lacks {', '.join(sorted(missing))}; "
                "as a start for training it can be given to dr train --weights"
            )
        if not isinstance(record["arch"], str):
            raise TypeError(f"arch {record['arch']!r}")
        if not isinstance(record["preprocessing"], Mapping):
            raise TypeError(f"preprocessing {record['preprocessing']!r}")
        epoch = record.get("epoch")
        if epoch is not None and type(epoch) is not int:
            raise TypeError(f"epoch {epoch!r}")
        calibration = Calibration.from_record(record)
        learned = record.get("trained_on")
        trained_on = TrainedOn(**learned) if learned else None
    except (SafetensorError, *_FOREIGN) as error:
        raise UsageError(f"{path} is no whole safetensors file of dr: {error}") from error
    if trained_on is None and (source / "config.json").is_file():  # weights of before said nothing
        trained_on = Run(source).config().data.trained_on
    way, familiar = record["preprocessing"], record.get("familiar")
    return ModelRecord(record["arch"], way, calibration, epoch, trained_on, familiar)


def count_parameters(source: Path) -> int:
    """The learned numbers of a `model.safetensors`, or of the run folder that has one, without
    reading them: all but what norms keep of their batches."""
    from safetensors import safe_open

    kept = ("running_mean", "running_var", "num_batches_tracked")
    with safe_open(_model_file(source), "np") as file:
        learned = [name for name in file.keys() if not name.endswith(kept)]  # noqa: SIM118
        return sum(math.prod(file.get_slice(name).get_shape()) for name in learned)


def _model_file(source: Path) -> Path:
    return source / MODEL if source.is_dir() else source


def runs_folder() -> Path:
    """Where runs go and are looked for: `$DR_RUNS`, else ./runs."""
    return Path(os.environ.get("DR_RUNS") or "runs")


def find_newest_run() -> Run:
    """The newest finished run in `runs_folder` that learned from photographs; where there is none,
    the newest on drawn eyes. Raises UsageError where no run is finished."""
    folder = runs_folder()
    summaries = sorted(folder.glob("*/summary.json"), key=lambda path: -path.stat().st_mtime)
    if not summaries:
        raise UsageError(f"no finished run in {folder}: name one with --run, or dr train first")
    runs = [Run(path.parent) for path in summaries]
    return next((run for run in runs if not _is_drawn_only(run)), runs[0])


def _is_drawn_only(run: Run) -> bool:
    try:
        return run.config().data.drawn
    except UsageError:  # said when its weights are read
        return False


def check_name(root: Path, name: str | None) -> None:
    """Raises UsageError where `name` exists in `root` or is no plain folder name; DrError where no
    folder can be made there: before hours go into what could not be kept."""
    there = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise DrError(
            f"{root}: no run folder can be made: {there} cannot be written to; set DR_RUNS"
        )
    if name is None:
        return
    if name in ("", ".", "..") or re.search(r"[/\\\0]", name):
        raise UsageError(f"--name {name!r} is no plain folder name; $DR_RUNS says where runs go")
    if (root / name).exists():
        way = Run(root / name).tell_way_on()
        raise UsageError(f"{root / name} exists: choose another --name, or {way}")


def new_run(
    root: Path, name: str | None, default: str, config: RunConfig, launch: str | None = None
) -> Run:
    """Makes the folder of a new run: `name`, or the next free one of `default`, `default-2`, ….

    It appears with its config.json in it: a run that is there can be gone on with. launch: what
    `find_launched` finds it by. Raises
    UsageError as `check_name` does, DrError where no folder can be made.
    """
    check_name(root, name)
    names = [name] if name else [default, *(f"{default}-{k}" for k in range(2, 10_000))]
    try:
        root.mkdir(parents=True, exist_ok=True)
        aside = Run(root / f".new-run-{secrets.token_hex(4)}")
        try:
            _sweep_new(root)
            aside.folder.mkdir()
            aside.write_config(config)
            if launch is not None:
                write_text(aside[LAUNCH], launch)
            for each in names:
                if not (root / each).exists() and _rename(aside.folder, root / each):
                    return Run(root / each)
        finally:
            shutil.rmtree(aside.folder, ignore_errors=True)
    except (OSError, WriteError) as error:
        why = getattr(error, "strerror", None) or error
        raise DrError(f"{root}: no run folder can be made: {why}") from error
    raise DrError(f"{root} holds {names[-1]}, and all before it: give another --name")


def find_launched(root: Path, launch: str) -> Run | None:
    """The run in `root` that this launch of several processes has begun last, if it has."""
    found = []
    for path in root.glob(f"*/{LAUNCH}"):
        with suppress(OSError):
            if path.read_text(encoding="utf-8") == launch:
                found.append((path.stat().st_mtime, path.parent))
    return Run(max(found)[1]) if found else None


def forget_launched(root: Path, launch: str) -> None:
    """From now on no run in `root` is of this launch: a new one of its name has begun none yet."""
    while run := find_launched(root, launch):
        run[LAUNCH].unlink(missing_ok=True)


def _rename(folder: Path, to: Path) -> bool:
    """The rename decides: two processes never share a folder. False where another one was first."""
    try:
        folder.rename(to)
        sync(to.parent)
    except OSError:
        if to.exists():
            return False
        raise
    return True


def _sweep_new(root: Path) -> None:
    """Removes what was left by processes killed while they made a folder, which takes no minute."""
    for path in root.glob(".new-run-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > 60:
                shutil.rmtree(path)
