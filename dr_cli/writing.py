"""Files that appear whole or not at all: written aside, then renamed.

A rename may reach the disk before the contents do, and a power cut then leaves an empty file in
the place of a good one. So the contents are written through first, and the folder behind them:
files that are there after a cut are whole, and none is older than one that was written before it.
Of a checkpoint of 90 MB that took 1 s on a disk of 90 MB/s, of a small file 15 ms.
"""

import csv
import io
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dr_cli.errors import WriteError

# Those of `whole`, and what safetensors writes aside by itself.
_ASIDE = re.compile(r"\..+\.[0-9a-f]{8}(\.[^.]+)?|\.tmp[0-9A-Za-z]{6}")


@contextmanager
def whole(path: Path, lasting: bool = True) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well, and vanishes otherwise.

    lasting: whether it must outlive a power cut. Raises WriteError where the folder is not there,
    cannot be written to or is full, and for a device or a pipe, whose place a file would take.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # of a name too long: False
        raise WriteError(f"{path} cannot be written: it is no file")
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    try:
        aside.touch()
        rights = aside.stat().st_mode
        yield aside
        aside.chmod(rights)  # safetensors makes files that only their owner reads
        if lasting:
            sync(aside)
        os.replace(aside, path)
        if lasting:
            sync(path.parent)
    except Exception as error:
        if why := _explain(error, aside):
            raise WriteError(f"{path} cannot be written: {why}") from error
        raise
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """What was written to a file, or which files a folder holds, is on the disk when it returns."""
    if path.is_dir() and os.name == "nt":  # which opens no folders
        return
    number = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _explain(error: Exception, aside: Path) -> str | None:
    """The system's reason why `aside` could not be written; None where it could.

    safetensors says it as Rust does, and takes away what it wrote; torch hides it in an error of
    its own and leaves it, so that the disk can be asked once more.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    if told := re.search(r"\(os error (\d+)\)", str(error)):
        return os.strerror(int(told[1]))
    try:
        with aside.open("ab") as file:
            file.write(bytes(2**16))
            file.flush()
            os.fsync(file.fileno())
    except OSError as why:
        return why.strerror
    return None


def sweep(folder: Path) -> None:
    """Removes what killed processes left aside, below `folder` too; nobody may be writing there."""
    for path in folder.rglob(".*"):
        if _ASIDE.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """UTF-8, line ends as they are."""
    with whole(path) as aside:
        aside.write_bytes(text.encode("utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Indented JSON; NaN is refused (an undefined figure is null)."""
    write_text(path, to_json(data) + "\n")


def to_json(data: Any) -> str:
    """As `write_json` writes it and commands print it."""
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a header; None is an empty cell, other keys than `columns` are passed over."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
