"""Signals that ask a process to stop: a first one ends it in order, a second one at once.

Python's own handlers wait for the end of what the network computes, seconds on a CPU, and run
wherever the main thread stands, whatever locks it holds. So what is said at once, and the second
signal, are a thread's, which the system wakes.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socket import socket

SIGNALS = tuple(  # USR1: what SLURM's --signal sends before the time is up
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
    if hasattr(signal, name)
)  # fmt: skip


class Interrupted(KeyboardInterrupt):
    """A signal has asked this process to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number
        """What a shell expects: 130 of Ctrl-C, 143 of SIGTERM, 129 of a terminal that closed."""


_asked: int | None = None  # the signal that came
_deferred = False


@contextmanager
def listen(told: Callable[[], None]) -> Iterator[None]:
    """Within the block a first signal calls `told`, in a thread of its own, and raises Interrupted
    (see `deferred`); a second ends the process. Signals that are ignored stay so, as of `nohup`.

    Does nothing but in the main thread. After an interruption further signals end the process
    without a word.
    """
    from socket import socketpair  # on use: 7 ms that `dr --help` need not spend

    global _asked, _deferred
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked, _deferred = None, False
    before = {one: signal.getsignal(one) for one in SIGNALS}
    before = {one: handler for one, handler in before.items() if handler != signal.SIG_IGN}
    reader, writer = socketpair()
    writer.setblocking(False)
    woken = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, _note)
    watcher = threading.Thread(target=_watch, args=(reader, told), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken)
        writer.close()
        watcher.join()  # before a second signal may end the process, the first one is told
        reader.close()
        for number, handler in before.items():
            signal.signal(number, handler if _asked is None else signal.SIG_DFL)


@contextmanager
def deferred() -> Iterator[None]:
    """A block that a first signal does not break; where it ends, Interrupted is raised."""
    global _deferred
    _deferred = True
    try:
        yield
    finally:
        _deferred = False
    check()


def check() -> None:
    """Raises Interrupted where a signal has come meanwhile."""
    if _asked is not None:
        raise Interrupted(_asked)


def asked() -> int | None:
    """The signal that has come, if one has: what is deferred should come to its end."""
    return _asked


def hear(number: int) -> None:
    """As if that signal had come to this process: it has come to another that it works with."""
    global _asked
    _asked = _asked or number


def _note(number: int, _: Any) -> None:
    global _asked
    if _asked is None:
        _asked = number
        if not _deferred:
            raise Interrupted(number)


def _watch(reader: "socket", told: Callable[[], None]) -> None:
    """Reads the number of each signal that comes, until the other end is closed."""
    first = True
    while numbers := reader.recv(1):
        if numbers[0] not in SIGNALS:
            continue
        if not first:
            os._exit(128 + numbers[0])
        first = False
        told()
