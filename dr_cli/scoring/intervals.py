"""Intervals: patients drawn again and again, with all their images.

The two eyes of a patient are alike, so the patient is the unit that was sampled, and the unit
to resample (cluster bootstrap: Davison & Hinkley 1997, section 3.8; Field & Welsh, JRSS B
2007, 69(3):369-390). A replicate is the number of times that each patient was drawn; figures
are functions of those numbers, so no replicate copies an image.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit  # type: ignore[import-untyped]

from dr_cli.scoring.metrics import Floats, Statistic

REPLICATES = 2000
BLOCK = 2**16  # weights in a block: it stays in the cache, and memory does not grow
ENOUGH = 0.95  # share of replicates in which a figure must be defined to have an interval
UNDEFINED = {"value": None, "ci95": None}  # a figure that these images cannot tell


def draws(units: int, replicates: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Blocks [b, units] of how often each unit was drawn; each row sums to `units`.

    They depend on (units, seed) alone, and a longer series begins like a shorter one: two runs
    on the same images meet the same patients.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    rows = max(1, BLOCK // max(units, 1))
    for start in range(0, replicates, rows):
        block = np.empty((min(rows, replicates - start), units), np.int32)
        for row in block:
            row[:] = np.bincount(generator.integers(0, units, units), minlength=units)
        yield block


def measure(
    statistics: Mapping[str, Statistic], units: int, replicates: int, seed: int
) -> dict[str, Floats]:
    """Each statistic of the sample as it is, then in each replicate: name -> [1 + B, ...]."""
    blocks = [
        {name: statistic(weights) for name, statistic in statistics.items()}
        for weights in chain([np.ones((1, units), np.int32)], draws(units, replicates, seed))
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in statistics}


def count_confusion(
    truth: NDArray[Any], said: NDArray[Any], kinds: int, unit: NDArray[np.int64]
) -> Statistic:
    """Confusion counts of the drawn images: truth, said [N] in 0..kinds-1, unit [N] -> [B, K, K].

    Counted row by row: a product with a table [units, cells] is no faster for 50,000 images and
    many times slower where other programs keep the processor's cores busy.
    """
    cell = truth * kinds + said

    def count(weights: NDArray[Any]) -> Floats:
        counts = np.empty((len(weights), kinds**2))
        for row, drawn in zip(counts, weights, strict=True):
            row[:] = np.bincount(cell, drawn[unit], kinds**2)
        return counts.reshape(-1, kinds, kinds)

    return count


def bound(found: Floats, units: int, proportion: bool = False) -> dict[str, Any]:
    """A figure with its interval, as a record has it: {"value", "ci95"}.

    found: of the images, then of each replicate, [1 + B]; units: patients that it rests on;
    proportion: a share of images, see `proportion_interval`.
    """
    value, replicates = float(found[0]), found[1:]
    if np.isnan(value):
        return dict(UNDEFINED)
    find = proportion_interval if proportion else interval
    return {"value": value, "ci95": find(replicates, value, units) if len(replicates) else None}


def interval(replicates: Floats, value: float, units: int) -> list[float] | None:
    """The 95% interval of a figure from [B] replicates, or None where they tell none.

    value: the figure itself; units: patients that it rests on (of a rate those it is a rate of,
    of an AUC those of the rarer class). Percentiles of the replicates, moved twice:
    - by the share of replicates below the value (bias-corrected: Efron, Canadian Journal of
      Statistics 1981, 9(2):139-158);
    - outwards for few patients: sqrt(n / (n - 1)) t(n - 1) in place of 1.96 (expanded
      percentiles: Hesterberg, The American Statistician 2015, 69(4):371-386).
    Plain percentiles held the truth in 88% of drawn data sets of 60 patients for the AUC of
    referable DR, these in 93% (`examples/benchmarks/evaluation.py --coverage`).

    Replicates in which the figure is undefined (NaN) are passed over; with more than 5% of them
    there is no interval: a class is too rare here to know. Nor is there one where every
    replicate gave the same number: a figure at the end of its scale (no mistake among the
    images) is uncertain in a way that resampling those images cannot show.
    """
    defined = _keep_defined(replicates, units)
    if defined is None:
        return None
    below = (defined < value - 1e-12).mean() + (np.abs(defined - value) <= 1e-12).mean() / 2
    bias = ndtri(np.clip(below, 1 / len(defined), 1 - 1 / len(defined)))
    return _take_percentiles(defined, units, bias)


def proportion_interval(replicates: Floats, value: float, units: int) -> list[float] | None:
    """`interval` of a share; at 0 or 1, the exact binomial bound on `units` patients.

    Clopper & Pearson, Biometrika 1934, 26(4):404-413: with all of n right, the lower bound is
    0.025^(1/n). Taking patients for images, it holds even where fellow eyes fully agree.
    """
    if units and value in (0.0, 1.0):
        margin = 0.025 ** (1 / units)
        return [margin, 1.0] if value else [0.0, 1 - margin]
    return interval(replicates, value, units)


def difference_interval(replicates: Floats, units: int) -> list[float] | None:
    """The 95% interval of a paired difference: `interval` without the move by bias, so that it
    leaves out 0 where `p_value` is below 0.05. None also where all replicates are equal."""
    defined = _keep_defined(replicates, units)
    return None if defined is None else _take_percentiles(defined, units)


def p_value(replicates: Floats, units: int) -> float | None:
    """Two-sided p that a difference is 0, from the smaller tail of [B] replicates around 0.

    The tail counts the observed sample as one replicate (Davison & Hinkley 1997, section 4.2),
    so p is never 0; it is widened for few patients as `difference_interval` is.
    """
    defined = _keep_defined(replicates, units)
    if defined is None:
        return None
    tail = min((defined <= 0).sum(), (defined >= 0).sum())
    z = ndtri(min(0.5, (tail + 1) / (len(defined) + 1)))
    return float(2 * stdtr(units - 1, z / np.sqrt(units / (units - 1))))


def _take_percentiles(defined: Floats, units: int, bias: float = 0.0) -> list[float] | None:
    """Between which replicates 95% lie; None where all are equal."""
    if np.ptp(defined) < 1e-12:
        return None
    reach = np.sqrt(units / (units - 1)) * stdtrit(units - 1, 0.975)  # in normal quantiles
    low, high = np.quantile(defined, ndtr(2 * bias + np.array([-1, 1]) * reach))
    return [float(low), float(high)]


def _keep_defined(replicates: Floats, units: int) -> Floats | None:
    """The replicates that are not NaN; None where they are none, or less than 95% of all, or
    rest on one patient."""
    defined = replicates[~np.isnan(replicates)]
    enough = units > 1 and 0 < len(defined) >= ENOUGH * len(replicates)
    return defined if enough else None
