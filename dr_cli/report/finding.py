"""Folders -> the runs in them: those that are finished, and those that are not, with how far."""

import shlex
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dr_cli.errors import DrError, UsageError
from dr_cli.runs import Run


@dataclass(frozen=True)
class Found:
    """The runs of some folders, each once."""

    finished: Sequence[Run]
    unfinished: Sequence[Run]
    """With a config.json and no summary.json: stopped, or still training."""

    @property
    def names(self) -> list[str]:
        """The folders' names, finished first, with as many parents as tell them apart."""
        whole = [run.folder.resolve().parts for run in (*self.finished, *self.unfinished)]
        for depth in range(1, max(map(len, whole)) + 1):
            names = ["/".join(parts[-depth:]) for parts in whole]
            if len(set(names)) == len(names):
                break
        return names


def find_runs(folders: Iterable[Path]) -> Found:
    """The runs that the folders are, or hold one or two levels down, by name.

    Raises UsageError for a folder that is missing, and for one in which no run is finished.
    """
    finished: list[Run] = []
    unfinished: list[Run] = []
    for folder in folders:
        here = _list_finished(Path(folder))
        cut = _list_unfinished(Path(folder))
        if not here:
            raise UsageError(_explain_none(Path(folder), cut))
        finished += here
        unfinished += cut
    return Found(_once(finished), _once(unfinished))


def tell_progress(run: Run) -> str:
    """How far an unfinished run has come: "3 of 10 epochs done"."""
    options: dict[str, int | None] = {}
    done = 0
    with suppress(DrError):
        options = dict(run.config().options)
    for kind in ("fold", "seed"):
        if number := options.get(f"{kind}s"):
            done = sum(Run(path).finished for path in run.folder.glob(f"{kind}-*"))
            return f"{done} of {number} {kind}s done"
    with suppress(DrError):
        done = len(run.history())
    return f"{done} of {options.get('epochs') or 'unknown'} epochs done"


def _list_finished(folder: Path) -> list[Run]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give a run folder or a folder of runs")
    if Run(folder).finished:
        return [Run(folder)]
    summaries = (*folder.glob("*/summary.json"), *folder.glob("*/*/summary.json"))
    below = {path.parent for path in summaries}
    # the folds of a cross-validation are read as the one run that pools them
    return [Run(path) for path in sorted(below) if path.parent not in below]


def _list_unfinished(folder: Path) -> list[Run]:
    """None in a finished run; an unfinished cross-validation is one, whatever its folds are."""
    if Run(folder).finished:
        return []
    configs = (
        folder / "config.json",
        *folder.glob("*/config.json"),
        *folder.glob("*/*/config.json"),
    )
    cut = {path.parent for path in configs if path.is_file() and not Run(path.parent).finished}
    return [Run(path) for path in sorted(cut) if path.parent not in cut]


def _explain_none(folder: Path, unfinished: Sequence[Run]) -> str:
    if not unfinished:
        return f"{folder}: no finished run (no summary.json in it); make one with dr train"
    first, others = unfinished[0], len(unfinished) - 1
    more = f" (nor are {others} more)" if others else ""
    return (
        f"{first.folder}: this run is not finished, {tell_progress(first)}{more}; "
        f"finish it with dr train --resume {shlex.quote(str(first.folder))}"
    )


def _once(runs: Iterable[Run]) -> list[Run]:
    return list({run.folder.resolve(): run for run in runs}.values())
