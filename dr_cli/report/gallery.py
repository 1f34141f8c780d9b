"""pictures.json of each run -> the pictures that a page shows: checked, and within a budget."""

import base64
import io
import json
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from PIL import Image

from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES

MOST_BYTES = 2_000_000  # of base64 in a page, all runs together: ten runs stay under 4 MB
LARGEST_SIDE = 1024  # pixels; a run's own pictures have 192

Entry = dict[str, Any]

_MALFORMED = (
    OSError, ValueError, KeyError, TypeError, AttributeError, Image.DecompressionBombError
)  # fmt: skip


def read(path: Path) -> list[Entry]:
    """The entries of a pictures.json as `dr_cli.pictures` makes them; none without the file.

    It is from outside, and its pictures go into a page: UsageError for anything but whole JPEGs
    in base64 with grades and probabilities beside them.
    """
    if not path.is_file():
        return []
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(entries, list):
            raise ValueError("no list")
        return [_checked(entry) for entry in entries]
    except _MALFORMED as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UsageError(
            f"{path} cannot be read ({reason}); without that file the report has no pictures"
        ) from error


def share(runs: Sequence[Sequence[Entry]], most: int = MOST_BYTES) -> list[list[Entry]]:
    """What of each run's entries a page shows, so that all together take `most` bytes at most.

    Every run has the same part of it; what one does not need goes to the others.
    """
    shown: list[list[Entry]] = [[] for _ in runs]
    lightest_first = sorted(range(len(runs)), key=lambda run: weight(runs[run]))
    for done, run in enumerate(lightest_first):
        shown[run] = _fitting(runs[run], most // (len(runs) - done))
        most -= weight(shown[run])
    return shown


def weight(entries: Sequence[Entry]) -> int:
    """Bytes that their pictures take in a page."""
    return sum(len(entry["photograph"]) + len(entry["heatmap"]) for entry in entries)


def _fitting(entries: Sequence[Entry], most: int) -> list[Entry]:
    """Mistakes, then right ones, in their own order; by turns, as far as `most` bytes reach."""
    kept = []
    for entry in _by_turns(entries):
        if weight([entry]) > most:
            break
        kept.append(entry)
        most -= weight([entry])
    order = {id(entry): place for place, entry in enumerate(entries)}
    return sorted(kept, key=lambda entry: (entry["kind"] == "right", order[id(entry)]))


def _by_turns(entries: Sequence[Entry]) -> list[Entry]:
    """A mistake, a right one, a mistake, …; of the right ones first one of each grade."""
    mistakes = [entry for entry in entries if entry["kind"] == "mistake"]
    seen: Counter[int] = Counter()
    ranked = []
    for entry in entries:
        if entry["kind"] == "right":
            ranked.append((seen[entry["grade"]], entry))
            seen[entry["grade"]] += 1
    right = [entry for _, entry in sorted(ranked, key=lambda pair: pair[0])]
    return [entry for pair in zip_longest(mistakes, right) for entry in pair if entry]


def _checked(entry: Any) -> Entry:
    if entry["kind"] not in ("mistake", "right"):
        raise ValueError(f"no such kind: {entry['kind']!r}")
    entry["path"].encode("utf-8")  # half of a surrogate pair cannot be written into a page
    probabilities = [float(value) for value in entry["probabilities"]]
    if len(probabilities) != NUM_GRADES or not all(0 <= p <= 1 for p in probabilities):
        raise ValueError(f"not {NUM_GRADES} probabilities: {probabilities}")
    return {
        "kind": entry["kind"],
        "path": entry["path"],
        "grade": _grade(entry["grade"]),
        "predicted": _grade(entry["predicted"]),
        "probabilities": probabilities,
        "photograph": _jpeg(entry["photograph"]),
        "heatmap": _jpeg(entry["heatmap"]),
    }


def _grade(value: Any) -> int:
    if type(value) is not int or value not in range(NUM_GRADES):
        raise ValueError(f"no grade: {value!r}")
    return value


def _jpeg(text: str) -> str:
    """The text itself, where it is strict base64 of a JPEG that decodes."""
    data = base64.b64decode(text, validate=True)
    with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        if max(picture.size) > LARGEST_SIDE:
            raise ValueError(f"a picture of {picture.width} × {picture.height} pixels")
        picture.load()
    return text
