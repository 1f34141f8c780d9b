"""Work that may never end, such as reading from a network share that hangs, waited for so long."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

Result = TypeVar("Result")
_SLICE = 0.5  # seconds


class Silent(Exception):  # noqa: N818 - named as what it is about
    """Nothing came in time; the thread that still waits for it holds up nobody."""


def within(seconds: float, work: Callable[[], Result]) -> Result:
    """What `work` gives or raises, if it does so in time; raises Silent otherwise.

    It is done in a daemon thread, because a read that hangs in the kernel cannot be broken off:
    such a thread is left behind, and ends with its read or with the process. Time is counted in
    slices, so that none passes while the process is stopped (Ctrl-Z).
    """
    done, found = threading.Event(), list[tuple[Any, BaseException | None]]()

    def run() -> None:
        try:
            found.append((work(), None))
        except BaseException as problem:  # whatever it is, the caller should hear of it
            found.append((None, problem))
        done.set()

    threading.Thread(target=run, name="dr-read", daemon=True).start()
    waited = 0.0
    while not done.wait(min(_SLICE, seconds - waited)):
        waited += _SLICE
        if waited >= seconds:
            raise Silent
    result, problem = found[0]
    if problem is not None:
        raise problem
    return result
