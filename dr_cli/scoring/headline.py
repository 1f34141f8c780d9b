"""The headline figures of some images with their intervals: of all, of a group, of patients."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.grades import NUM_GRADES
from dr_cli.scoring import metrics, per_grade, screening
from dr_cli.scoring.intervals import UNDEFINED, bound
from dr_cli.scoring.metrics import FIGURES, Floats
from dr_cli.scoring.per_grade import Rates
from dr_cli.scoring.predictions import TARGETS, Sample

Record = dict[str, Any]
Replicates = Mapping[str, NDArray[Any]]  # of the images, then of each replicate, [1 + B, ...]
UNTOLD = np.full(1, np.nan)  # in place of a figure's value and replicates


def prepare(sample: Sample) -> dict[str, metrics.Statistic]:
    """What the figures rest on, as functions of how often each patient was drawn."""
    statistics: dict[str, metrics.Statistic] = {}
    if sample.graded:
        statistics["confusion"] = sample.graded.count_by(sample.unit)
    for name, target in sample.targets.items():
        statistics[name] = target.count_by(sample.unit)
        if target.score is not None:
            area = metrics.weigh_roc_area(target.truth, target.score, sample.unit)
            sums = screening.sum_by(target.truth, target.score, sample.unit)
            statistics |= {f"{name}.auc": area, f"{name}.sums": sums}
    return statistics


def measure(sample: Sample, found: Replicates) -> Record:
    """The figures with their intervals; those that the table cannot tell are undefined.

    found: what `prepare` names, of the images, then of each replicate.
    """
    counts = _find_counts(found)
    rates = per_grade.measure_rates(sample, counts)
    figures = {
        name: _measure_figure(figure, sample, figure.of(counts), rates)
        for name, figure in FIGURES.items()
        if figure.of
    }
    return figures | {name: _measure_target(name, sample, found) for name in TARGETS}


def find_values(found: Replicates) -> dict[str, Floats]:
    """The same figures without intervals, by their names in `FIGURES`: of the images, then of
    each replicate, [1 + B]; those that the table cannot tell are left out."""
    counts = _find_counts(found)
    values = {name: figure.of(counts) for name, figure in FIGURES.items() if figure.of}
    for name in TARGETS:
        if name in found:
            values[f"{name}.auc"] = found.get(f"{name}.auc", np.full(len(found[name]), np.nan))
            values[f"{name}.sensitivity"] = screening.sensitivity_of(found[name])
            values[f"{name}.specificity"] = screening.specificity_of(found[name])
    return {name: value for name, value in values.items() if not np.isnan(value[0])}


def _find_counts(found: Replicates) -> NDArray[Any]:
    nothing = np.zeros((1, NUM_GRADES, NUM_GRADES))  # all of whose figures are undefined
    return found.get("confusion", nothing)


def _measure_figure(
    figure: metrics.Figure, sample: Sample, found: Floats, rates: Mapping[str, Rates]
) -> Record:
    """A figure of confusion counts: of the images, then of each replicate, [1 + B]."""
    if figure.mean_of and rates:
        return {"value": metrics.as_plain(found[0]), "ci95": rates[figure.mean_of].bound_mean()}
    return bound(found, sample.units, figure.proportion, len(sample.unit))


def _measure_target(name: str, sample: Sample, found: Replicates) -> Record:
    if name not in sample.targets:
        return {figure: dict(UNDEFINED) for figure in ("auc", "sensitivity", "specificity")}
    truth, counts = sample.targets[name].truth, found[name]
    positive, negative = sample.units_with(truth), sample.units_with(~truth)
    images = int(truth.sum())
    return {
        "auc": bound(found.get(f"{name}.auc", UNTOLD), min(positive, negative)),
        "sensitivity": bound(screening.sensitivity_of(counts), positive, True, images),
        "specificity": bound(screening.specificity_of(counts), negative, True, len(truth) - images),
    }
