"""Intervals: patients drawn again and again, with all their images.

The two eyes of a patient are alike, so the patient is the unit that was sampled, and the unit
to resample (cluster bootstrap: Davison & Hinkley 1997, section 3.8; Field & Welsh, JRSS B
2007, 69(3):369-390). A replicate is the number of times that each patient was drawn; figures
are functions of those numbers, so no replicate copies an image.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import (  # type: ignore[import-untyped]
    expit,
    logit,
    ndtr,
    ndtri,
    stdtr,
    stdtrit,
)

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


def bound(
    found: Floats, units: int, proportion: bool = False, images: int | None = None
) -> dict[str, Any]:
    """A figure with its interval, as a record has it: {"value", "ci95"}.

    found: of the images, then of each replicate, [1 + B]; units: patients that it rests on;
    proportion: a share, of so many images, see `proportion_interval`.
    """
    value, replicates = float(found[0]), found[1:]
    if np.isnan(value):
        return dict(UNDEFINED)
    if not len(replicates):
        return {"value": value, "ci95": None}
    if proportion:
        return {"value": value, "ci95": proportion_interval(replicates, value, units, images)}
    return {"value": value, "ci95": interval(replicates, value, units)}


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


def proportion_interval(
    replicates: Floats, value: float, units: int, images: int | None = None
) -> list[float] | None:
    """The 95% interval of a share from [B] replicates: Wilson's, on as many independent images
    as those are worth.

    units: patients that the share rests on, images: their images (by default two of each).
    Fellow eyes are alike, so `images` are worth p (1 - p) / variance of the replicates, less the
    t quantile's excess for few patients (Korn & Graubard, Survey Methodology 1998, 24(2):193-201),
    but no less than the patients. The score interval (Wilson, JASA 1927, 22(158):209-212) holds
    for four images as for four thousand, where percentiles of replicates do not. At 0 or 1 the
    exact binomial bound on the patients (Clopper & Pearson, Biometrika 1934, 26(4):404-413): with
    all of n right, the lower one is 0.025^(1/n).
    """
    defined = replicates[~np.isnan(replicates)]
    if not units or not len(defined):
        return None
    if value in (0.0, 1.0):
        margin = 0.025 ** (1 / units)
        return [margin, 1.0] if value else [0.0, 1 - margin]
    n, z, spread = float(units), ndtri(0.975), defined.var()
    if units > 1 and spread > 0:
        worth = value * (1 - value) / spread * (z / stdtrit(units - 1, 0.975)) ** 2
        n = float(np.clip(worth, units, images or 2 * units))
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    return [float(middle - half), float(middle + half)]


def mean_interval(rates: Floats, bounds: Sequence[list[float] | None]) -> list[float] | None:
    """The 95% interval of the mean of some shares, from that of each.

    rates: of the images, then of each replicate, [1 + B, K]; bounds: K intervals. The distances
    of the shares from their lower bounds are added as deviations are, with the correlations of
    the replicates, and so are those from the upper ones (MOVER: Zou & Donner, Statistics in
    Medicine 2008, 27(10):1693-1702). A share that rests on three patients brings its own width,
    which replicates that lack those patients do not show.
    """
    if any(bound is None for bound in bounds):
        return None
    low, high = np.array(bounds, np.float64).T
    value, replicates = rates[0], rates[1:]
    mean = value.mean()
    replicates = np.where(np.isnan(replicates), value, replicates) - value
    replicates = replicates - replicates.mean(axis=0)
    spread = np.sqrt((replicates**2).mean(axis=0))
    scaled = replicates / np.where(spread > 0, spread, 1)
    alike = scaled.T @ scaled / len(scaled)
    np.fill_diagonal(alike, 1)
    down, up = (np.sqrt(max(d @ alike @ d, 0.0)) / len(d) for d in (value - low, high - value))
    return [float(max(mean - down, 0)), float(min(mean + up, 1))]


def contrast_interval(
    a: Floats, b: Floats, a_bounds: list[float] | None, b_bounds: list[float] | None
) -> list[float] | None:
    """The 95% interval of a figure of some images less that of others, from that of each; None
    where either has none.

    a, b: the figure, then of each replicate, [1 + B], both of the same draws. As in
    `mean_interval` the distances from the bounds are added as deviations are, with the
    correlation of the replicates: near 0 unless the two share patients.
    """
    if a_bounds is None or b_bounds is None:
        return None
    both = np.stack([a[1:], b[1:]])[:, ~np.isnan(a[1:] + b[1:])]
    apart = both - both.mean(axis=1, keepdims=True)
    spread = np.sqrt((apart**2).mean(axis=1))
    alike = float((apart[0] * apart[1]).mean() / (spread[0] * spread[1])) if spread.all() else 0.0
    value = float(a[0] - b[0])

    def reach(first: float, second: float) -> float:
        return float(np.sqrt(max(first**2 + second**2 - 2 * alike * first * second, 0.0)))

    down = reach(a[0] - a_bounds[0], b_bounds[1] - b[0])
    up = reach(a_bounds[1] - a[0], b[0] - b_bounds[0])
    return [value - down, value + up]


def studentised_interval(sums: Floats) -> list[float] | None:
    """The 95% interval of a mean over images, which may be skewed: bootstrap-t.

    sums [1 + B, 5]: of the images, then of each replicate, over patients: y, n, y^2, y n, n^2,
    where y is a patient's sum and n its images. Each replicate's distance is measured in its own
    standard error (Davison & Hinkley 1997, section 5.2.1), so that a mean which a few patients
    decide, as the likelihood's does, has the longer interval upwards that it needs.
    """
    if len(sums) < 2:
        return None
    mean = sums[:, 0] / sums[:, 1]
    square = sums[:, 2] - 2 * mean * sums[:, 3] + mean**2 * sums[:, 4]
    error = np.sqrt(np.maximum(square, 0)) / sums[:, 1]
    told = error > 1e-12
    if not told[0] or told.mean() < ENOUGH:
        return None
    t = (mean[1:] - mean[0])[told[1:]] / error[1:][told[1:]]
    low, high = mean[0] - np.quantile(t, [0.975, 0.025]) * error[0]
    return [float(max(low, 0)), float(high)]


def gap_interval(gaps: Floats) -> list[float] | None:
    """The 95% interval of a sum of |gaps|, such as ECE, which noise alone makes larger than 0.

    gaps: of the images, then of each replicate, [1 + B, bins]. The sum is biased upwards, and its
    replicates twice as much, so percentiles leave out the truth (in 100% of drawn sets of
    calibrated probabilities). Asked instead: for which t would gaps of t times those seen, with
    the replicates' noise, show a sum as seen? From the t whose sum is as large with 2.5% chance
    to that whose sum is as small; 0 where no gap at all would do.
    """
    if len(gaps) < 2:
        return None
    seen, noise = gaps[0], gaps[1:] - gaps[0]
    value = np.abs(seen).sum()
    spread = np.abs(gaps[1:]).sum(axis=1).std()
    if value < 1e-12 or spread < 1e-12:
        return None
    reach = 6 * spread / value
    scales = np.linspace(max(0.0, 1 - reach), 1 + reach, 41)
    sums = np.array([np.abs(t * seen + noise).sum(axis=1) for t in scales])
    smallest, largest = np.quantile(sums, [0.025, 0.975], axis=1)
    low = np.interp(value, np.maximum.accumulate(largest), scales) if largest[0] < value else 0.0
    high = np.interp(value, np.maximum.accumulate(smallest), scales)
    return [float(min(low, 1) * value), float(max(high, 1) * value)]


def area_interval(
    truth: NDArray[np.bool_], score: Floats, unit: NDArray[np.int64]
) -> list[float] | None:
    """The 95% interval of one area under the ROC curve, without replicates; None where it is 0 or
    1, or a class has fewer than two patients.

    Variance as Obuchowski's for clustered images (Biometrics 1997, 53(2):567-578), on the scale
    of ln(A / (1 - A)), with the t quantile for the patients of the rarer class.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    units = [len(np.unique(unit[of])) for of in (truth, ~truth)]
    if min(units) < 2:
        return None
    above = _share_below(score[~truth], score[truth])
    below = 1 - _share_below(score[truth], score[~truth])
    area = above.mean()
    if area in (0.0, 1.0):
        return None
    whole = int(unit.max()) + 1
    a = np.bincount(unit[truth], above - area, whole)
    b = np.bincount(unit[~truth], below - area, whole)
    everyone = len(np.unique(unit))
    variance = (
        units[0] / (units[0] - 1) * (a @ a) / positives**2
        + units[1] / (units[1] - 1) * (b @ b) / negatives**2
        + 2 * everyone / (everyone - 1) * (a @ b) / (positives * negatives)
    )
    if variance <= 0:
        return None
    half = stdtrit(min(units) - 1, 0.975) * np.sqrt(variance) / (area * (1 - area))
    return [float(x) for x in expit(logit(area) + np.array([-half, half]))]


def _share_below(scores: Floats, than: Floats) -> Floats:
    """Which share of the scores lies below each of `than`, equal ones counting half."""
    ordered = np.sort(scores)
    below, not_above = (np.searchsorted(ordered, than, side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(ordered))


def difference_interval(replicates: Floats, difference: float, units: int) -> list[float] | None:
    """The 95% interval of a paired difference: t times the deviation of [B] replicates to either
    side, so that it leaves out 0 where `p_value` is below 0.05. None where all are equal."""
    error = _find_error(replicates, units)
    if not error:
        return None
    half = stdtrit(units - 1, 0.975) * error
    return [float(difference - half), float(difference + half)]


def p_value(replicates: Floats, difference: float, units: int) -> float | None:
    """Two-sided p that a paired difference is 0: its ratio to the deviation of [B] replicates, by
    the t distribution of the patients it rests on.

    The share of replicates beyond 0 would have no value between 0 and 1 / B: corrected for 55
    pairs (11 runs) nothing was ever significant. This tail has no end, and its size is nominal:
    `examples/benchmarks/evaluation.py --null`.
    """
    error = _find_error(replicates, units)
    if error is None:
        return None
    if abs(difference) < 1e-12 or not error:
        return 1.0 if abs(difference) < 1e-12 else None
    return float(2 * stdtr(units - 1, -abs(difference) / error))


def _find_error(replicates: Floats, units: int) -> float | None:
    """The standard error that replicates show, for few patients a little larger; 0 where they are
    all equal; None where they tell none."""
    defined = _keep_defined(replicates, units)
    if defined is None:
        return None
    equal = np.ptp(defined) < 1e-12
    return 0.0 if equal else float(defined.std() * np.sqrt(units / (units - 1)))


def _take_percentiles(defined: Floats, units: int, bias: float) -> list[float] | None:
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
