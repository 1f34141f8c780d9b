"""What `dr train` says at its end: what was kept, how good it is, what to type next."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dr_cli import words
from dr_cli.cli.scorecard import judge
from dr_cli.cli.tables import Record
from dr_cli.runs import counted_split

if TYPE_CHECKING:
    from dr_cli.runs import Run

_FIGURES = {"QWK": "qwk", "accuracy": "accuracy"}


def close(run: "Run") -> Iterator[str]:
    """The lines; warnings were said before."""
    summary = run.summary()
    counted = summary[counted_split(summary)]
    if (kept := run.epoch()) is not None:
        yield _line("kept", f"epoch {kept} of {len(run.history())}")
    for split, called in (("val", "validation"), ("test", "test")):
        if record := summary.get(split):
            yield _line(called, _tell_figures(record))
    if seeds := counted.get("seeds"):
        spread = (
            f"{called} {words.number(seeds['mean'][name])} ± {words.number(seeds['sd'][name])}"
            for called, name in _FIGURES.items()
            if seeds["sd"].get(name) is not None
        )
        yield _line("one network", ", ".join(spread))
    for name, called in words.BASELINES.items():
        if pair := counted["baselines"].get(name):
            figures = (f"{key} {words.number(pair[name])}" for key, name in _FIGURES.items())
            yield _line("baseline", f"{', '.join(figures)}: {called}")
    yield from judge(counted)
    if sum(map(any, zip(*counted["confusion"], strict=True))) == 1:  # all was called one grade
        ways = "more --epochs, --pretrained, another --lr, --balance oversample"
        yield _line("try", ways)
    here = shlex.quote(str(run.folder))
    yield _line("run", str(run.folder))
    yield _line("next", f"dr eval {here}")
    yield _line("", f"dr report {shlex.quote(str(run.folder.parent))}")


def _tell_figures(record: Record) -> str:
    told = [f"{called} {words.figure(record[name])}" for called, name in _FIGURES.items()]
    auc = (record["referable"] or {}).get("auc")
    return ", ".join([*told, f"referable AUC {words.figure(auc)}"])


def _line(head: str, text: str) -> str:
    return f"{head:<12}{text}"
