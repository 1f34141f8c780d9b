"""What a person sees on stderr while the core works. Rich is imported where it is used."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dr_cli import words
from dr_cli.events import Observer, Outline

if TYPE_CHECKING:
    from rich.progress import Progress

    from dr_cli.runs import Run

LINE_EVERY = 30.0  # seconds between lines off a terminal
_COLUMNS = (  # with a space between them 78 characters, the best one's mark included
    ("epoch", "epoch", ""),
    ("train_loss", "   loss", ".4f"),
    ("train_accuracy", "train acc", ".3f"),
    ("val_accuracy", "val acc", ".3f"),
    ("val_qwk", "val QWK", ".3f"),
    ("test_accuracy", "test acc", ".3f"),
    ("test_qwk", "test QWK", ".3f"),
    ("images_per_second", " img/s", ".1f"),
    ("seconds", "   sec", ".1f"),
)


class Console(Observer):
    """Bars on a terminal, lines off it; everything said is kept for log.txt."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console as RichConsole

        self.rich = RichConsole(stderr=True, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.begun: Run | None = None
        self._unwritten: list[str] = []
        self._bar: Progress | None = None
        self._last_line = time.monotonic()
        self._header = False

    def run(self, run: "Run") -> None:
        """From now on the run's log.txt holds what is said, and what was said before."""
        self.begun = run
        self._write()

    def _write(self) -> None:
        if self.begun is not None:
            with self.begun["log.txt"].open("a", encoding="utf-8", newline="\n") as log:
                log.writelines(f"{line}\n" for line in self._unwritten)
            self._unwritten = []

    def note(self, text: str, style: str | None = None, always: bool = False) -> None:
        """A line; `always` shows it in spite of --quiet."""
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
        self._header = False
        counts = ", ".join(f"{n:,} {split}" for split, n in outline.images.items() if n)
        self.note(
            f"{outline.arch} ({outline.parameters / 1e6:.1f} M parameters), {outline.size} px, "
            f"batch {outline.batch_size}, {words.count(outline.epochs, 'epoch')} of "
            f"{words.count(outline.steps_per_epoch, 'step')}; images: {counts}"
        )
        self.note(outline.reason)

    def progress(self, what: str, done: int, total: int | None) -> None:
        """Shows a task's bar, or a line now and then off a terminal."""
        self._show(what, done, total, "")

    def batch(
        self, epoch: int, phase: str, done: int, total: int, figures: Mapping[str, float]
    ) -> None:
        """Shows the epoch's bar with its running figures."""
        text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        self._show(f"epoch {epoch} {phase}", done, total, text)

    def epoch(self, row: Mapping[str, Any], best: bool) -> None:
        """A row of the growing table; the best epoch so far is marked."""
        self._stop()
        shown = [column for column in _COLUMNS if column[0] in row]
        if not self._header:
            self.note(" ".join(head for _, head, _ in shown), "bold")
            self._header = True
        cells = [
            ("n/a" if row[name] is None else format(row[name], figure)).rjust(len(head))
            for name, head, figure in shown
        ]
        self.note(" ".join(cells) + " best" * best, "green" if best else None)

    def close(self) -> None:
        """Takes away the bar, so that what is written to stdout stands on lines of its own."""
        self._stop()

    def _show(self, what: str, done: int, total: int | None, figures: str) -> None:
        if self.quiet:
            return
        if not self.rich.is_terminal:
            if time.monotonic() - self._last_line > LINE_EVERY:
                self._last_line = time.monotonic()
                of = "" if total is None else f" of {total:,}"
                self.rich.print(f"{what}: {done:,}{of}  {figures}".rstrip(), markup=False)
            return
        if self._bar is None:
            self._bar, self._what = self._open_bar(), ""
            self._task = self._bar.add_task("", total=total, figures="", speed="")
            self._bar.start()
        if what != self._what:
            self._bar.reset(self._task, description=what, total=total)
            self._what, self._since = what, time.monotonic()
        seconds = time.monotonic() - self._since
        speed = f"{done / seconds:.1f}" if seconds > 1 else ""  # of less it would be a guess
        self._bar.update(self._task, completed=done, total=total, figures=figures, speed=speed)
        if total is not None and done >= total:
            self._stop()

    def _open_bar(self) -> "Progress":
        from rich import progress

        return progress.Progress(
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[speed]:>7} img/s"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[figures]}", markup=False),
            console=self.rich,
            transient=True,
            redirect_stdout=False,  # else what goes to a file would stand on the terminal
            refresh_per_second=4,
        )

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()


def short(path: Path) -> str:
    """A path as a person would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
