"""Files that appear whole or not at all: written aside, then renamed."""

import csv
import io
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ASIDE = re.compile(r"\..+\.[0-9a-f]{8}(\.[^.]+)?")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well, and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    aside.touch()
    rights = aside.stat().st_mode
    try:
        yield aside
        aside.chmod(rights)  # safetensors makes files that only their owner reads
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


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
