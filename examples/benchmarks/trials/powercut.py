"""A disk that loses, when the power goes, whatever was not written through.

What a process may rely on after `fsync`: of a file its contents, of a folder the names in it.
Everything else is up to chance here, more harshly than any one file system: each rename of which
the folder was not written through happened or not, and a file that was not is empty.
"""

import filecmp
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

JOURNAL = "journal"


@contextmanager
def watched(kept: Path) -> Iterator[None]:
    """Within the block what this process writes through is kept in the folder `kept`."""
    kept.mkdir(parents=True, exist_ok=True)
    real = {name: getattr(os, name) for name in ("fsync", "replace", "rename")}
    copies, counted = dict[int, str](), count()  # of each file by its inode

    def note(*entry: object) -> None:
        with (kept / JOURNAL).open("a") as journal:
            journal.write(json.dumps(entry) + "\n")

    def fsync(number: int) -> None:
        real["fsync"](number)
        path = os.readlink(f"/proc/self/fd/{number}")
        if os.path.isdir(path):
            note("folder", path)
        else:
            copies[os.fstat(number).st_ino] = copy = f"copy-{next(counted)}"
            shutil.copyfile(path, kept / copy)

    def find_copy(path: Path) -> str | None:
        """Of a file that was written through as it is now."""
        copy = copies.get(path.stat().st_ino)
        return copy if copy and filecmp.cmp(kept / copy, path, shallow=False) else None

    def rename(source: Any, to: Any, **_: object) -> None:
        target = Path(os.path.abspath(to))
        real["replace"](source, to)
        files = filter(Path.is_file, target.rglob("*")) if target.is_dir() else [target]
        note("rename", str(target), [(str(path), find_copy(path)) for path in files])

    os.fsync, os.replace, os.rename = fsync, rename, rename
    try:
        yield
    finally:
        os.fsync, os.replace, os.rename = real.values()


def restart(kept: Path, folders: Sequence[Path], rng: np.random.Generator) -> None:
    """The power is back: makes of the folders what stands on the disk."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    for path, contents in read(kept, rng).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)


def read(kept: Path, rng: np.random.Generator) -> dict[Path, bytes]:
    """What stands on the disk when the power is back: path -> contents."""
    journal = kept / JOURNAL
    lines = (
        [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    )
    found: dict[Path, bytes] = {}
    for place, (kind, what, *files) in enumerate(lines):
        sure = ["folder", os.path.dirname(what)] in lines[place:]
        if kind == "rename" and (sure or rng.random() < 0.5):
            for path, copy in files[0]:
                found[Path(path)] = (kept / copy).read_bytes() if copy else b""
    return found
