"""The headline figures of some images with their intervals: of all, of a group, of patients."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.grades import NUM_GRADES
from dr_cli.scoring import influence, metrics, per_grade, screening
from dr_cli.scoring.intervals import SCALES, UNDEFINED, bound_smooth
from dr_cli.scoring.metrics import FIGURES, Floats
from dr_cli.scoring.per_grade import Rates, bound_area
from dr_cli.scoring.predictions import TARGETS, Sample

Record = dict[str, Any]
Replicates = Mapping[str, NDArray[Any]]  # of the images, then of each replicate, [1 + B, ...]


def prepare(sample: Sample, areas: bool = False) -> dict[str, metrics.Statistic]:
    """What the figures rest on, as functions of how often each patient was drawn; `areas`: with
    those under the ROC curve, whose own intervals ask for no draws (`find_values` does)."""
    statistics: dict[str, metrics.Statistic] = {}
    if sample.graded:
        statistics["confusion"] = sample.graded.count_by(sample.unit)
    for name, target in sample.targets.items():
        statistics[name] = target.count_by(sample.unit)
        if areas and target.score is not None:
            area = metrics.weigh_roc_area(target.truth, target.score, sample.unit)
            statistics[f"{name}.auc"] = area
    return statistics


def measure(sample: Sample, found: Replicates) -> Record:
    """The figures with their intervals; those that the table cannot tell are undefined.

    found: what `prepare` names, of the images, then of each replicate.
    """
    counts = _find_counts(found)
    rates = per_grade.measure_rates(sample, counts)
    drawn = len(counts) > 1
    figures = {
        name: _measure_figure(figure, sample, figure.of(counts), rates, drawn)
        for name, figure in FIGURES.items()
        if figure.of
    }
    return figures | {name: _measure_target(name, sample, found) for name in TARGETS}


def find_values(found: Replicates) -> dict[str, Floats]:
    """The same figures without intervals, by their names in `FIGURES`: of the images, then of
    each replicate, [1 + B]; those that the table cannot tell are left out. found: what `prepare`
    names with areas."""
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
    figure: metrics.Figure,
    sample: Sample,
    found: Floats,
    rates: Mapping[str, Rates],
    drawn: bool,
) -> Record:
    """A figure of confusion counts: of the images, then of each replicate, [1 + B]; drawn: whether
    there is one."""
    if figure.mean_of and rates:
        return {"value": metrics.as_plain(found[0]), "ci95": rates[figure.mean_of].bound_mean()}
    if not figure.scale or not sample.graded or not figure.of:
        return sample.bound_share(found, np.ones(len(sample.unit), bool))
    ci95, value = None, float(found[0])
    if drawn and not np.isnan(value):
        said = sample.graded
        moved = influence.of_counts(figure.of, said.truth, said.said, said.kinds, sample.unit)
        ci95 = bound_smooth(value, moved, SCALES[figure.scale])
    return {"value": metrics.as_plain(value), "ci95": ci95}


def _measure_target(name: str, sample: Sample, found: Replicates) -> Record:
    if name not in sample.targets:
        return {figure: dict(UNDEFINED) for figure in ("auc", "sensitivity", "specificity")}
    truth, counts, score = sample.targets[name].truth, found[name], sample.targets[name].score
    drawn = len(counts) > 1
    return {
        "auc": dict(UNDEFINED) if score is None else bound_area(truth, score, sample.unit, drawn),
        "sensitivity": sample.bound_share(screening.sensitivity_of(counts), truth),
        "specificity": sample.bound_share(screening.specificity_of(counts), ~truth),
    }
