"""pictures.json of a run -> the pictures that a page shows: checked, and within a budget."""

import base64
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES

MOST_BYTES = 2_000_000  # of base64 in a page, all runs together: ten runs stay under 4 MB

Entry = dict[str, Any]


def check(entries: Any, where: Path) -> list[Entry]:
    """The entries of a pictures.json as `training.pictures` makes them.

    The file is from outside, and its pictures go into a page. What they show is the page's own
    affair (autoescape, and a policy that runs no script), but UsageError naming `where` for
    pictures that are not base64, and for grades and probabilities that are none.
    """
    try:
        if not isinstance(entries, list):
            raise ValueError("no list")
        for entry in entries:
            _check_entry(entry)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else error
        raise UsageError(
            f"{where} cannot be read ({reason}); without that file the report has no pictures"
        ) from error
    return entries


def fit(entries: Sequence[Entry], most: int) -> list[Entry]:
    """Those that a page shows, in their own order, so that they take `most` bytes at most.

    A mistake, a right one, a mistake, …; of the right ones first one of each grade.
    """
    turns, seen = [], Counter[Any]()
    for place, entry in enumerate(entries):
        right = entry["kind"] == "right"
        among = ("right", entry["grade"]) if right else "mistakes"
        turns.append((seen[among] * NUM_GRADES + entry["grade"] if right else seen[among], place))
        seen[among] += 1
    order = [place for _, place in sorted(turns)]
    weights = accumulate(weigh(entries[place]) for place in order)
    kept = sorted(place for place, weight in zip(order, weights, strict=True) if weight <= most)
    return [entries[place] for place in kept]


def weigh(entry: Entry) -> int:
    """Bytes that its two pictures take in a page."""
    return len(entry["photograph"]) + len(entry["heatmap"])


def _check_entry(entry: Any) -> None:
    if entry["kind"] not in ("mistake", "right"):
        raise ValueError(f"no such kind: {entry['kind']!r}")
    entry["path"].encode("utf-8")  # half of a surrogate pair cannot be written into a page
    for grade in (entry["grade"], entry["predicted"]):
        if type(grade) is not int or grade not in range(NUM_GRADES):
            raise ValueError(f"no grade: {grade!r}")
    probabilities = entry["probabilities"]
    if len(probabilities) != NUM_GRADES or not all(0 <= p <= 1 for p in probabilities):
        raise ValueError(f"not {NUM_GRADES} probabilities: {probabilities}")
    for picture in (entry["photograph"], entry["heatmap"]):
        base64.b64decode(picture, validate=True)
