"""Which photographs `dr predict` was given: files, folders, paths on stdin, as they come."""

import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from dr_cli.errors import DrError
from dr_cli.photographs.passed import Entered, Passed, is_hidden
from dr_cli.sample import named

MOST_PATH = 10**6  # bytes of a path on stdin; Linux takes 4,096


def list_photographs(
    names: Iterable[str], nul: bool = False, passed: Passed | None = None
) -> Iterator[str]:
    """Files as they are named, photographs of folders in sorted order, drawn sets by their name,
    `-` from stdin.

    Nothing is held back: a list of a million paths is never in memory. passed: told what was
    passed over in folders.
    """
    passed = passed or Passed()
    for name in names:
        if name == "-":
            yield from _read_stdin(nul)
        elif named.is_named(name):
            from dr_cli.photographs.cache import folder

            yield from _walk(str(named.settle(name, folder()) / "images"), passed)
        elif os.path.isdir(name):
            yield from _walk(name, passed)
        else:
            yield name


def count(names: Sequence[str]) -> float:
    """How many photographs they are; inf where one stands for any number of them."""
    several = any(name == "-" or named.is_named(name) or os.path.isdir(name) for name in names)
    return math.inf if several else len(names)


def _walk(top: str, passed: Passed) -> Iterator[str]:
    """All below a folder that is named as a photograph, also what will turn out to be none.

    Links and hidden names as in `photographs.passed`.
    """
    from dr_cli.photographs.decoding import EXTENSIONS  # on use: it brings numpy

    entered = Entered(top)

    def refuse(error: OSError) -> None:
        passed.folders.append(f"{error.filename} ({error.strerror})")

    for folder, below, files in os.walk(top, onerror=refuse, followlinks=True):
        seen = [name for name in sorted(below) if not is_hidden(name)]
        below[:] = [name for name in seen if entered.is_new(os.path.join(folder, name))]
        if not files and not seen and folder != top and _suffix(folder) in EXTENSIONS:
            yield folder  # named as a photograph, and empty: somebody took it for one
        for file in sorted(files):
            if _suffix(file) in EXTENSIONS and not file.startswith("."):
                yield os.path.join(folder, file)
            elif not file.startswith("."):
                passed.files[_suffix(file)] += 1


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _read_stdin(nul: bool) -> Iterator[str]:
    """Paths a line, or between NULs; each as soon as its end has come.

    Raises DrError for what is longer than any path, and may have no end at all.

    Read below Python's buffer, which a thread that waits for a pipe would hold locked when the
    interpreter ends.
    """
    buffer: Any = sys.stdin.buffer
    source, end, rest = getattr(buffer, "raw", buffer), b"\0" if nul else b"\n", b""
    while block := source.read(65536):  # a raw file gives what is there
        *whole, rest = (rest + block).split(end)
        yield from map(os.fsdecode, filter(None, (_strip(name, nul) for name in whole)))
        if len(rest) > MOST_PATH:
            raise DrError("stdin: a megabyte without a line's end is no list of paths")
    if last := _strip(rest, nul):
        yield os.fsdecode(last)


def _strip(name: bytes, nul: bool) -> bytes:
    return name if nul else name.rstrip(b"\r")
