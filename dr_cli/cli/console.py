"""What a person sees on stderr while the core works. The only room that knows Rich."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dr_cli.events import Observer, Outline

if TYPE_CHECKING:
    from dr_cli.runs import Run

LINE_EVERY = 30.0  # seconds between lines off a terminal
_COLUMNS = (  # with a space between them 78 characters, the best one's mark included
    ("epoch", "epoch", "{:>5}"),
    ("train_loss", "loss", "{:>7.4f}"),
    ("train_accuracy", "train acc", "{:>9.3f}"),
    ("val_accuracy", "val acc", "{:>7.3f}"),
    ("val_qwk", "val QWK", "{:>7.3f}"),
    ("test_accuracy", "test acc", "{:>8.3f}"),
    ("test_qwk", "test QWK", "{:>8.3f}"),
    ("images_per_second", "img/s", "{:>6.1f}"),
    ("seconds", "sec", "{:>6.1f}"),
)
BEST = " best"


class Console(Observer):
    """Bars on a terminal, lines off it; everything said is kept for log.txt."""

    def __init__(self, quiet: bool = False) -> None:
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

    def say(self, text: str, style: str | None = None, always: bool = False) -> None:
        """A line."""
        self._unwritten.append(text)
        if always or not self.quiet:
            self.rich.print(text, style=style, markup=False)
        self._write()

    def note(self, text: str) -> None:
        """A sentence worth knowing."""
        self.say(text)

    def warning(self, text: str) -> None:
        """A sentence about what may spoil the result; --quiet does not hide it."""
        self.say(f"warning: {text}", "yellow", always=True)

    def plan(self, outline: Outline) -> None:
        """What will be trained; a table of epochs of its own follows."""
        self._header = False
        counts = ", ".join(f"{n:,} {split}" for split, n in outline.images.items() if n)
        self.say(
            f"{outline.arch} ({outline.parameters / 1e6:.1f} M parameters), {outline.size} px, "
            f"batch {outline.batch_size}, {_count(outline.epochs, 'epoch')} of "
            f"{_count(outline.steps_per_epoch, 'step')}; images: {counts}"
        )
        self.say(outline.reason)

    def progress(self, what: str, done: int, total: int) -> None:
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
        shown = [c for c in _COLUMNS if c[0] in row]
        if not self._header:
            widths = [len(c[2].format(0)) for c in shown]
            heads = [c[1].rjust(w) for c, w in zip(shown, widths, strict=True)]
            self.say(" ".join(heads), "bold")
            self._header = True
        cells = [
            layout.format(row[name])
            if row[name] is not None
            else "n/a".rjust(len(layout.format(0)))
            for name, _, layout in shown
        ]
        self.say(" ".join(cells) + BEST * best, "green" if best else None)

    def _show(self, what: str, done: int, total: int, figures: str) -> None:
        if self.quiet:
            return
        if not self.rich.is_terminal:
            if time.monotonic() - self._last_line > LINE_EVERY:
                self._last_line = time.monotonic()
                self.rich.print(f"{what}: {done:,} of {total:,}  {figures}", markup=False)
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[speed]:>7} img/s"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}", markup=False),
                console=self.rich,
                transient=True,
                refresh_per_second=4,
            )
            self._task = self._bar.add_task(what, total=total, figures="", speed="")
            self._what = what
            self._since = time.monotonic()
            self._bar.start()
        if what != self._what:
            self._bar.reset(self._task, description=what, total=total)
            self._what, self._since = what, time.monotonic()
        seconds = time.monotonic() - self._since
        speed = f"{done / seconds:.1f}" if seconds > 1 else ""  # of less it would be a guess
        self._bar.update(self._task, completed=done, total=total, figures=figures, speed=speed)
        if done >= total:
            self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> "Console":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" + "s" * (n != 1)


def confusion_table(record: Mapping[str, Any]) -> Any:
    """A Rich table: rows true, columns predicted, counts and row percentages."""
    from rich import box
    from rich.table import Table

    names = [f"{entry['grade']} {entry['name']}" for entry in record["per_grade"]]
    table = Table(title="Confusion: rows true, columns predicted", box=box.SIMPLE)
    table.add_column("true \\ predicted")
    for name in names:
        table.add_column(name, justify="right")
    for k, (name, row) in enumerate(zip(names, record["confusion"], strict=True)):
        total = sum(row)
        cells = [f"{n} ({n / total:.0%})" if total else f"{n}" for n in row]
        cells[k] = f"[bold]{cells[k]}[/bold]"
        table.add_row(name, *cells)
    return table


def audit_tables(record: Mapping[str, Any]) -> list[Any]:
    """What a dry run found, and its plan, as Rich things."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from dr_cli.grades import NAMES
    from dr_cli.training.audit import problems

    counts = Table(title=Text(f"{record['root']}: {record['layout']}"), box=box.SIMPLE)
    for name in ("split", "images", "patients", *NAMES):
        counts.add_column(name, justify="left" if name == "split" else "right")
    for split, found in record["splits"].items():
        patients = "not known" if found["patients"] is None else f"{found['patients']:,}"
        counts.add_row(
            split, f"{found['n']:,}", patients, *(f"{n:,}" for n in found["grade_counts"])
        )
    lines = [f"{record['rows']:,} rows, {record['images_found']:,} images found"]
    lines += [f"left out: {n:,} ({reason})" for reason, n in record["left_out"].items()]
    if record["sizes"]:
        low, middle, high = zip(record["sizes"]["width"], record["sizes"]["height"], strict=True)
        lines.append(
            f"sizes: {low[0]}×{low[1]} to {high[0]}×{high[1]}, median {middle[0]}×{middle[1]}"
        )
    doubles = record["duplicates"]
    lines.append(
        f"duplicates: {doubles['exact_groups']} exact groups, {doubles['near_groups']} near, "
        f"{doubles['conflicting_groups']} with conflicting grades"
    )
    for name, pair in record["baselines"].items():
        if pair is not None:
            shown = ", ".join(f"{k} {'n/a' if v is None else f'{v:.3f}'}" for k, v in pair.items())
            lines.append(f"baseline on {record['judged_on']}, {name.replace('_', ' ')}: {shown}")
    lines += [f"warning: {problem}" for problem in problems(dict(record))]
    if (plan := record["plan"]) is not None:
        memory = "" if plan["memory_bytes"] is None else f", {plan['memory_bytes'] / 2**30:.1f} GiB"
        lines.append(
            f"plan: {plan['arch']}, {plan['size']} px, batch {plan['batch_size']}, "
            f"{plan['epochs']} epochs of {plan['steps_per_epoch']} steps on {plan['device']} in "
            f"{plan['precision']}: about {plan['seconds_per_epoch']:.0f} s an epoch{memory}"
        )
    return [counts, *(Text(line) for line in lines)]


def comparison_table(data: Mapping[str, Any]) -> Any:
    """A Rich table of the runs of a report."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from dr_cli.report import page

    wanted = ("QWK", "Accuracy", "Referable AUC")  # with their intervals all that 80 columns hold
    columns = [column for column in page.TABLE if column.heading in wanted]
    table = Table(box=box.SIMPLE)
    table.add_column("Run", overflow="fold")
    for column in columns:
        table.add_column(column.heading)
    for run in data["runs"]:
        table.add_row(Text(run["name"]), *(Text(column.text(run)) for column in columns))
    return table


def print_table(*parts: Any, to_stdout: bool = True) -> None:
    """Prints Rich things on stdout: a command's data, shown to a person."""
    console = RichConsole(file=sys.stdout if to_stdout else sys.stderr, highlight=False)
    for part in parts:
        console.print(part)


def short(path: Path) -> str:
    """A path as a person would type it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
