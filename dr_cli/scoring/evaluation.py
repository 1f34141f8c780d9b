"""The record that `evaluate` gives, as a notebook shows it. Everybody else sees a dict."""

from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from dr_cli import markup, words
from dr_cli.plots.confusion import ConfusionMatrix
from dr_cli.scoring.flat import flatten
from dr_cli.scoring.metrics import FIGURES
from dr_cli.scoring.record import Record

SHOWN = (
    "accuracy", "qwk", "referable.auc", "referable.sensitivity", "referable.specificity",
    "calibration.ece",
)  # fmt: skip


class Evaluation(Record):
    """A record of `record.build_record`; README names its fields."""

    def _repr_html_(self) -> str:
        """What was scored, the figures beside the baselines, the confusions, the warnings."""
        parts = [
            markup.tag("p", self._title()),
            markup.table(("", "value (95% interval)", *words.BASELINES.values()), self._rows()),
        ]
        if self["confusion"]:
            parts.append(Markup(ConfusionMatrix.from_counts(self["confusion"])._repr_html_()))
        parts += [markup.tag("p", f"Warning: {told}") for told in self["warnings"]]
        return markup.join(parts)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """IPython's text, where the whole record is thousands of numbers: print() gives it."""
        qwk, accuracy = words.figure(self["qwk"]), words.figure(self["accuracy"], True)
        printer.text(f"{self._title()}; QWK {qwk}, accuracy {accuracy}")

    def _title(self) -> str:
        patients = f" of {words.count(self['patients'], 'patient')}" if self["patients"] else ""
        failed = f", {self['failed']:,} could not be read" if self["failed"] else ""
        images = words.count(self["n"], "image")
        return f"{self['run']}, {self['split']}: {images}{patients}{failed}"

    def _rows(self) -> Iterator[list[str]]:
        figures = {name: {"value": value, "ci95": ci95} for name, value, ci95 in flatten(self)}
        for name in SHOWN:
            percent = FIGURES[name].percent
            bases = (figures.get(f"baseline.{base}.{name}") for base in words.BASELINES)
            unknown = "not known" if f"baseline.majority.{name}" in figures else ""
            others = (words.figure(base, percent) if base else unknown for base in bases)
            yield [FIGURES[name].heading, words.figure(figures.get(name), percent), *others]
