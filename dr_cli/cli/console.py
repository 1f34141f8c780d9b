"""What a person sees on stderr while the core works. Rich is imported where it is used."""

import io
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr_cli import words
from dr_cli.cli.bar import Horizon, lay_out
from dr_cli.events import Observer, Outline

if TYPE_CHECKING:
    from rich.live import Live

    from dr_cli.runs import Run

LINE_EVERY = 30.0  # seconds between lines off a terminal
_COLUMNS = (
    ("train_loss", "   loss", ".4f"),
    ("train_accuracy", "train acc", ".3f"),
    ("val_accuracy", "val acc", ".3f"),
    ("val_qwk", "val QWK", ".3f"),
    ("test_accuracy", "test acc", ".3f"),
    ("test_qwk", "test QWK", ".3f"),
    ("images_per_second", " img/s", ".1f"),
    ("seconds", "   sec", ".1f"),
)
_SPARED = (  # columns that a narrow terminal goes without, the first to go first
    "images_per_second", "train_accuracy", "seconds", "test_accuracy", "val_accuracy",
    "train_loss", "test_qwk",
)  # fmt: skip


class Console(Observer):
    """Bars on a terminal, lines off it; everything said is kept for log.txt."""

    def __init__(self, quiet: bool = False, mute: bool = False) -> None:
        """quiet: warnings alone; mute: nothing at all, as of all but the first of processes."""
        from rich.console import Console as RichConsole

        nowhere = io.StringIO() if mute else None
        self.rich = RichConsole(file=nowhere, stderr=True, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.begun: Run | None = None
        self._unwritten: list[str] = []
        self._live: Live | None = None
        self._task: tuple[str, int, int | None, tuple[str, ...]] = ("", 0, None, ())
        self._since = self._last_line = time.monotonic()
        self._from = 0
        self._header: list[tuple[str, str, str]] = []
        self._horizon: Horizon | None = None
        self._epochs = 0
        self._kept = ""
        self._over, self._ending = False, threading.Lock()

    def run(self, run: "Run") -> None:
        """From now on the run's log.txt holds what is said, and what was said before."""
        self.begun = run
        self._write()

    def _write(self) -> None:
        if self.begun is not None:
            # On a full disk what matters more fails, too, and says so.
            with (
                suppress(OSError),
                self.begun["log.txt"].open("a", encoding="utf-8", newline="\n") as log,
            ):
                log.writelines(f"{line}\n" for line in self._unwritten)
            self._unwritten = []

    def note(self, text: str, style: str | None = None, always: bool = False) -> None:
        """A line; `always` shows it in spite of --quiet."""
        self.close()
        text = words.visible(text)
        self._unwritten.append(text)
        if always or not self.quiet:
            # On a terminal a line ends between words; in a file it goes on.
            whole = not self.rich.is_terminal
            self.rich.print(text, style=style, markup=False, soft_wrap=whole)
        self._write()

    def warning(self, text: str) -> None:
        """A sentence about what may spoil the result; --quiet does not hide it."""
        self.note(f"warning: {text}", "yellow", always=True)

    def plan(self, outline: Outline) -> None:
        """What will be trained; a table of epochs of its own follows."""
        self._header, self._epochs = [], outline.epochs
        self._horizon = Horizon(outline)
        counts = ", ".join(f"{n:,} {split}" for split, n in outline.images.items() if n)
        self.note(
            f"{outline.arch} ({outline.parameters / 1e6:.1f} M parameters), {outline.size} px, "
            f"batch {outline.batch_size}, {words.count(outline.epochs, 'epoch')} of "
            f"{words.count(outline.steps_per_epoch, 'step')}; images: {counts}"
        )
        self.note(outline.reason)
        if outline.kept != self._kept:  # of folds said once
            self._kept = outline.kept
            self.note(outline.kept)

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Shows a task's bar, or a line now and then off a terminal."""
        self._show(what, done, total)

    def batch(
        self, epoch: int, phase: str, done: int, total: int, figures: Mapping[str, float]
    ) -> None:
        """Shows the epoch's bar with its running figures, and when the run will end."""
        told = [f"{name} {value:.3f}" for name, value in figures.items()]
        end = self._horizon.tell(epoch, phase, done) if self._horizon else ""
        self._show(f"epoch {epoch}/{self._epochs or '?'} {phase}", done, total, end, *told)

    def epoch(self, row: Mapping[str, Any], kept: bool) -> None:
        """A row of the growing table; one that is kept so far has a colour."""
        first = max(len("epoch"), 2 * len(str(self._epochs)) + 1)
        if not self._header:
            self._header = self._choose_columns(row, first)
            heads = [head for _, head, _ in self._header]
            self.note(" ".join(["epoch".rjust(first), *heads]), "bold")
        cells = [
            ("n/a" if row[name] is None else format(row[name], figure)).rjust(len(head))
            for name, head, figure in self._header
        ]
        number = f"{row['epoch']}/{self._epochs or '?'}".rjust(first)
        self.note(" ".join([number, *cells]), "green" if kept else None)

    def _choose_columns(self, row: Mapping[str, Any], first: int) -> list[tuple[str, str, str]]:
        """Those of the table that are known, and on a terminal have room."""
        shown = [column for column in _COLUMNS if column[0] in row]
        for name in _SPARED if self.rich.is_terminal else ():
            if first + sum(1 + len(head) for _, head, _ in shown) <= self.rich.width:
                break
            shown = [column for column in shown if column[0] != name]
        return shown

    def interrupted(self) -> None:
        """Says once, and at once, that it is over and how to go on; for any thread."""
        with self._ending:
            if self._over:
                return
            self._over = True
            way = f"; {self.begun.tell_way_on()}" if self.begun else ": nothing was begun"
            with suppress(OSError):  # a terminal that was closed
                if self.rich.is_terminal and self._live is None:  # else ^C goes with the bar
                    self.rich.print()
                self.note(f"interrupted{way}", always=True)

    def close(self) -> None:
        """Takes away the bar, so that what is written stands on lines of its own."""
        if (live := self._live) is not None:
            self._live = None
            live.stop()

    def _show(self, what: str, done: int, total: int | None, *parts: str) -> None:
        """parts: what may be said beside, the most important first."""
        if self.quiet or self._over:
            return
        now = time.monotonic()
        if what != self._task[0]:
            self._since, self._from = now, done  # which is more than none where it is gone on with
        new = done - self._from
        if (seconds := now - self._since) > 1 and new:  # of less it would be a guess
            left = seconds / new * ((total or done) - done)
            ends = () if parts or not left else (f"ends in {words.duration(left)}",)
            parts = (*parts, *ends, f"{new / seconds:.1f} img/s")
        self._task = (what, done, total, parts)
        if not self.rich.is_terminal:
            if now - self._last_line > LINE_EVERY:
                self._last_line = now
                self.rich.print(self._tell(10_000, drawn=False), markup=False)
            return
        if total is not None and done >= total:
            self.close()
        elif self._live is None:
            self._live = self._open()

    def _tell(self, width: int, drawn: bool = True) -> str:
        what, done, total, parts = self._task
        of = "?" if total is None else f"{total}"
        count = f"{done}/{of}" if done or total else "…"
        share = done / total if total and drawn else None
        return lay_out(what, count, share, parts, width)

    def _open(self) -> "Live":
        from rich.live import Live
        from rich.text import Text

        live = Live(
            get_renderable=lambda: Text(self._tell(self.rich.width), no_wrap=True),
            console=self.rich,
            transient=True,
            redirect_stdout=False,  # else what goes to a file would stand on the terminal
            refresh_per_second=4,
        )
        live.start()
        return live

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def short(path: Path) -> str:
    """A path as a person would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
