"""Files that appear whole or not at all: written aside, then renamed."""

import csv
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o666 & ~_UMASK)  # mkstemp makes files that only their owner reads
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _umask() -> int:
    """What the system takes from a new file's rights; the only way to ask is to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


_UMASK = _umask()  # asked once, before there are threads that would see it at 0


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
