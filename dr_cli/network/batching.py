"""Work done ahead, handed over in batches, and at once where its source is slow."""

import threading
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, Full, Queue
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
PATIENCE = 0.2  # seconds that a batch which has begun waits for its next item
_END = object()
_LOOKS = 0.1  # seconds after which a full queue is looked at anew


def in_batches(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, size: int
) -> Generator[list[Result], None, None]:
    """`work` of each item in order, at most `size` at once; up to three batches are in memory.

    A batch is short where the items end, and where the next one is more than PATIENCE away, as
    behind a slow `find`. The items are walked in a thread of their own, so that waiting for them
    stops nobody: a daemon, because one that waits for a pipe cannot be told to end. What they
    raise is raised here, in its place.
    """
    pool = ThreadPoolExecutor(threads, "dr-work")
    ahead: Queue[Any] = Queue(2 * size)  # futures; at last _END, or what the items raised
    stopped = threading.Event()

    def put(one: Any) -> None:
        while not stopped.is_set():
            with suppress(Full):
                ahead.put(one, timeout=_LOOKS)
                break

    def feed() -> None:
        try:
            for item in items:
                put(pool.submit(work, item))
                if stopped.is_set():
                    break
            put(_END)
        except BaseException as error:  # whatever it is, the consumer should hear of it
            put(error)

    threading.Thread(target=feed, name="dr-items", daemon=True).start()
    try:
        while True:
            some, end = _take(ahead, size)
            if some:
                yield [one.result() for one in some]
            if isinstance(end, BaseException):
                raise end
            if end is _END:
                return
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _take(ahead: "Queue[Any]", size: int) -> tuple[list[Any], Any]:
    """The futures of the next batch; and _END or an error where those end it."""
    some: list[Any] = []
    while len(some) < size:
        try:
            one = ahead.get(timeout=PATIENCE if some else None)
        except Empty:
            break
        if not isinstance(one, Future):
            return some, one
        some.append(one)
    return some, None
