"""Intervals: patients drawn again and again, with all their images.

The two eyes of a patient are alike, so the patient is the unit that was sampled, and the unit
to resample (cluster bootstrap: Davison & Hinkley 1997, section 3.8; Field & Welsh, JRSS B
2007, 69(3):369-390). A replicate is the number of times that each patient was drawn; figures
are functions of those numbers, so no replicate copies an image.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[NDArray[Any]], Floats]  # weights [B, units] -> [B, ...]

REPLICATES = 2000
BLOCK = 2**16  # weights in a block: it stays in the cache, and memory does not grow
ENOUGH = 0.95  # share of replicates in which a figure must be defined to have an interval


def draws(units: int, replicates: int, seed: int) -> Iterator[NDArray[np.int32]]:
    """Blocks [b, units] of how often each unit was drawn; each row sums to `units`.

    They depend on (units, seed) alone, and a longer series begins like a shorter one: two runs
    on the same images meet the same patients.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    rows = max(1, BLOCK // max(units, 1))
    for start in range(0, max(replicates, 1), rows):  # at least one block, if an empty one
        block = np.empty((min(rows, replicates - start), units), np.int32)
        for row in block:
            row[:] = np.bincount(generator.integers(0, units, units), minlength=units)
        yield block


def replicate(
    statistics: Mapping[str, Statistic], units: int, replicates: int, seed: int
) -> dict[str, Floats]:
    """Each statistic in each replicate: name -> [replicates, ...]."""
    blocks = [
        {name: statistic(weights) for name, statistic in statistics.items()}
        for weights in draws(units, replicates, seed)
    ]
    return {name: np.concatenate([block[name] for block in blocks]) for name in statistics}


def cell_counts(cell: NDArray[np.int64], cells: int, unit: NDArray[np.int64]) -> Statistic:
    """How many drawn images fall into each cell: cell [N] in 0..cells-1, unit [N] -> [B, cells].

    Counted row by row: a product with a table [units, cells] is no faster for 50,000 images and
    many times slower where other programs keep the processor's cores busy.
    """

    def counted(weights: NDArray[Any]) -> Floats:
        counts = np.empty((len(weights), cells))
        for row, drawn in zip(counts, weights, strict=True):
            row[:] = np.bincount(cell, drawn[unit], cells)
        return counts

    return counted


def interval(replicates: Floats) -> list[float] | None:
    """The 95% percentile interval of [B] replicates (Efron 1979), or None where they tell none.

    Replicates in which the figure is undefined (NaN) are passed over; more than 5% of them, and
    there is no interval: a class is too rare here to know. Nor is there one where every
    replicate gave the same number: a figure at the end of its scale (no mistake among the
    images) is uncertain in a way that resampling those images cannot show.
    """
    defined = replicates[~np.isnan(replicates)]
    if len(defined) == 0 or len(defined) < ENOUGH * len(replicates):
        return None
    low, high = np.percentile(defined, [2.5, 97.5])
    return [float(low), float(high)] if np.ptp(defined) > 1e-12 else None


def proportion_interval(replicates: Floats, value: float, units: int) -> list[float] | None:
    """`interval` of a share; at 0 or 1, the exact binomial bound on `units` patients.

    Clopper & Pearson, Biometrika 1934, 26(4):404-413: with all of n right, the lower bound is
    0.025^(1/n). Taking patients for images, it holds even where fellow eyes fully agree.
    """
    if units and value in (0.0, 1.0):
        reach = 0.025 ** (1 / units)
        return [reach, 1.0] if value else [0.0, 1 - reach]
    return interval(replicates)


def p_value(replicates: Floats) -> float | None:
    """Two-sided p that a difference is 0: twice the smaller tail of [B] replicates around 0.

    The tail counts the observed sample as one replicate (Davison & Hinkley 1997, section 4.2),
    so p is never 0; but for that one it is below 0.05 where `interval` leaves out 0. None where
    too few replicates are defined.
    """
    defined = replicates[~np.isnan(replicates)]
    if len(defined) == 0 or len(defined) < ENOUGH * len(replicates):
        return None
    tail = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(defined) + 1)))
