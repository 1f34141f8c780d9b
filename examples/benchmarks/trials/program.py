"""`dr` in a process of its own, forked from this one, which has loaded what takes seconds.

Nothing is computed in this process, so that it has no threads when it forks.
"""

import contextlib
import importlib
import io
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trials import need

Within = Callable[[], contextlib.AbstractContextManager[Any]]
LOADED = (
    "dr_cli.cli", "dr_cli.training.session", "dr_cli.plots.lines", "dr_cli.sample.drawn_set",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "seaborn", "safetensors.torch",
    "rich.console", "PIL.JpegImagePlugin", "scipy.optimize", "scipy.sparse.csgraph",
    "torch._dynamo",  # 2.5 s, which an optimiser takes
)  # fmt: skip


def load() -> None:
    """What every process needs; once."""
    for name in LOADED:
        importlib.import_module(name)


class Process:
    """A process at work, what it says kept in a file."""

    def __init__(self, work: Callable[[], Any], said: Path, env: Mapping[str, str]) -> None:
        load()
        self._said = said
        self.begun = time.perf_counter()
        self.number = os.fork()
        if not self.number:
            _work(work, said, env)

    def signal(self, number: int) -> None:
        """Sends it one; nothing where it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.number, number)

    def ended(self) -> bool:
        """Whether it has ended, without waiting, and without reaping it."""
        return os.waitid(os.P_PID, self.number, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self, seconds: float = 300) -> int:
        """Its exit code, negative where a signal ended it. Lost where it hangs."""
        until = time.perf_counter() + seconds
        while not self.ended():
            if time.perf_counter() > until:
                self.signal(signal.SIGKILL)
                os.waitpid(self.number, 0)
                need(False, f"hung for {seconds:.0f} s: {self.said()[-200:]!r}")
            time.sleep(0.005)
        return os.waitstatus_to_exitcode(os.waitpid(self.number, 0)[1])

    def said(self) -> str:
        """All it has said on stdout and stderr, in order."""
        return self._said.read_text(encoding="utf-8", errors="replace")


def start(
    *arguments: object, said: Path, within: Within = contextlib.nullcontext, **env: str
) -> Process:
    """`dr arguments…` begun. said: file of its stdout and stderr; within: a block around it."""

    def work() -> None:
        with within():
            from dr_cli.cli import main

            sys.argv = ["dr", *map(str, arguments)]
            main()

    return Process(work, said, env)


def dr(*arguments: object, said: Path, within: Within = contextlib.nullcontext, **env: str) -> str:
    """What `dr arguments…` said. Lost where it did not end with 0."""
    process = start(*arguments, said=said, within=within, **env)
    code = process.wait()
    need(code == 0, f"dr {arguments[0]} ended with {code}: {process.said().strip()[-300:]!r}")
    return process.said()


def _work(work: Callable[[], Any], said: Path, env: Mapping[str, str]) -> None:
    """Never returns: what an interpreter does with a main function, in a forked process."""
    os.setsid()
    code = 1
    try:
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for number in (1, 2):
            os.dup2(out, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = io.TextIOWrapper(open(0, "rb", closefd=False))  # noqa: SIM115
        for name, number in (("stdout", 1), ("stderr", 2)):
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
        os.environ.update(env)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # as in a shell's foreground
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            work()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
    finally:
        os._exit(code)
