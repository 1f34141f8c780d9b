"""A set of drawn eyes by its name: `sample:n=20000,size=224,seed=3`, wherever DATA is read."""

import re
from pathlib import Path

from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer

PREFIX = "sample:"
LIMITS = {"n": (1, 10_000_000), "size": (64, 1024), "seed": (0, 2**32 - 1)}
DEFAULTS = {"n": 600, "size": 224, "seed": 0}
DEFAULT = PREFIX + ",".join(f"{key}={value}" for key, value in DEFAULTS.items())
_FOLDER = re.compile(r"(\d+)-(\d+)-(\d+)-(\d+)")  # as `drawn_set.ensure` calls one


def is_named(data: object) -> bool:
    """Whether DATA is the name of a drawn set rather than a path."""
    return str(data).startswith(PREFIX)


def parse(name: str) -> dict[str, int]:
    """n, size and seed of `sample:n=…,size=…,seed=…`; what is left out is the default set's.

    Raises UsageError naming the part that is wrong.
    """
    values = dict(DEFAULTS)
    for part in filter(None, name.removeprefix(PREFIX).split(",")):
        key, _, value = part.partition("=")
        if key not in LIMITS:
            raise UsageError(f"{name}: {part!r} is none of n=…, size=…, seed=…; {_example()}")
        low, high = LIMITS[key]
        if not re.fullmatch(r"[0-9]{1,12}", value) or not low <= int(value) <= high:
            raise UsageError(f"{name}: {key} is a number from {low} to {high:,}; {_example()}")
        values[key] = int(value)
    return values


def spell(folder: Path | str) -> str | None:
    """The name of the set that is kept in a folder of the cache; None where it says none."""
    found = _FOLDER.fullmatch(re.split(r"[/\\]", str(folder).rstrip("/\\"))[-1])
    if found is None:
        return None
    values = dict(zip(DEFAULTS, map(int, found.groups()[1:]), strict=True))
    return PREFIX + ",".join(f"{key}={value}" for key, value in values.items())


def settle(
    name: str, cache: Path, *, workers: int | None = None, observer: Observer = NOTHING
) -> Path:
    """The folder of a named set below `cache`, drawn if it is not there yet."""
    from dr_cli.sample import drawn_set  # on use: it brings Pillow and processes

    values = parse(name)
    return drawn_set.ensure(
        cache,
        images=values["n"],
        size=values["size"],
        seed=values["seed"],
        workers=workers,
        observer=observer,
    )


def _example() -> str:
    return "such as sample:n=20000,size=224,seed=3"
