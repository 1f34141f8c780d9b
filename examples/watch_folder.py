"""Grades what arrives in a folder, a line of JSON each, until it is interrupted.

    python examples/watch_folder.py runs/resnet18 inbox/ grades.jsonl

A file is taken once its size has stood still for a second: cameras and copies write slowly. What
stands in the list already is passed over, so that it can be started again.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from dr_cli import Grader

EVERY = 1.0  # seconds between looks


def arrivals(folder: Path, known: set[str], looks: int | None = None) -> Iterator[Path]:
    """Files that are new and no longer grow, by name; looks: how often to look, None: for ever."""
    sizes: dict[Path, int] = {}
    while looks is None or looks > 0:
        for path in sorted(p for p in folder.iterdir() if p.name[0] != "."):
            try:
                if not path.is_file():
                    continue
                size = path.stat().st_size
            except FileNotFoundError:  # moved away since the look began: grading makes it last
                continue
            if str(path) not in known and sizes.get(path) == size:
                known.add(str(path))
                yield path
            sizes[path] = size
        looks = looks and looks - 1
        time.sleep(EVERY)


def main(run: str, folder: str, grades: str, looks: int | None = None) -> None:
    with open(grades, "a+", encoding="utf-8", newline="\n") as listed:
        listed.seek(0)
        lines = [line for line in listed if line.endswith("\n")]
        listed.truncate(sum(map(len, lines)))  # a half-written last line; all is ASCII
        known = {json.loads(line)["path"] for line in lines}
        for record in Grader.load(run).predict(arrivals(Path(folder), known, looks)):
            listed.write(json.dumps(record) + "\n")
            listed.flush()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:4])
    except KeyboardInterrupt:
        sys.exit(130)
