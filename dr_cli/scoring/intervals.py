"""Intervals over patients, whose two eyes are alike: the patient is the unit that was sampled.

A figure that moves smoothly with its patients has Student's t on the scale where its errors are
even, by what each patient moves it (`bound_smooth`); a share has Wilson's interval, and what is
made of shares is bounded by theirs. How shares of one sample hang together, and the errors of the
probabilities, are told by the bootstrap: patients drawn again and again, with all their images
(Davison & Hinkley 1997, section 3.8; Field & Welsh, JRSS B 2007, 69(3):369-390). A replicate is the
number of times that each patient was drawn; figures are functions of those numbers, so no
replicate copies an image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import (  # type: ignore[import-untyped]
    expit,
    logit,
    ndtri,
    stdtrit,
)

from dr_cli.scoring.metrics import Floats, Statistic

REPLICATES = 2000
BLOCK = 2**16  # weights in a block: it stays in the cache, and memory does not grow
FEW = 10  # patients: fewer do not tell how alike two eyes are, and what rests on them is rough
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


@dataclass(frozen=True)
class Scale:
    """Where the errors of a figure are about as long to either side."""

    to: Callable[[float], float]
    back: Callable[[float], float]
    slope: Callable[[float], float]  # of `to`
    holds: tuple[float, float]  # between which the figure must lie, or has no interval


PLAIN = Scale(float, float, lambda _: 1.0, (-np.inf, np.inf))
LOG = Scale(np.log, np.exp, lambda x: 1 / x, (0.0, np.inf))
LOGIT = Scale(logit, expit, lambda x: 1 / (x * (1 - x)), (0.0, 1.0))
FISHER = Scale(np.arctanh, np.tanh, lambda x: 1 / (1 - x**2), (-1.0, 1.0))  # of correlations
SCALES = {"log": LOG, "logit": LOGIT, "fisher": FISHER}


def bound_smooth(
    value: float, influences: Floats | None, scale: Scale = PLAIN
) -> list[float] | None:
    """The 95% interval of a figure by what each patient moves it, [units] as in `influence`.

    Student's t, with as many degrees of freedom as patients carry the variance: those that its own
    fourth moment gives (Satterthwaite, Biometrics Bulletin 1946, 2(6):110-114), so that where two
    of 100 patients carry it all, it is t of four. None at an end of the
    scale, such as an area of 1, where no patient can move it further; and where it is not known
    what they move.
    """
    if influences is None or len(influences) < 2 or not scale.holds[0] < value < scale.holds[1]:
        return None
    squares = influences**2
    variance = squares.sum()
    if not 1e-24 < variance < np.inf:
        return None
    excess = (squares**2).sum() - variance**2 / len(squares)
    share = max(excess / variance**2, 1e-9)  # 0 where all patients move it alike
    freedom = float(np.clip(2 / share, 1, len(squares) - 1))
    half = stdtrit(freedom, 0.975) * np.sqrt(variance) * scale.slope(value)
    return [float(scale.back(scale.to(value) + side)) for side in (-half, half)]


def proportion_interval(
    replicates: Floats, value: float, units: int, images: int, worth: float = 0.0
) -> list[float] | None:
    """The 95% interval of a share from [B] replicates: Wilson's, on as many independent images
    as those are worth.

    units: patients that the share rests on, images: their images. Fellow eyes are alike, so
    `images` are worth p (1 - p) / variance of the replicates, less the t quantile's excess for few
    patients (Korn & Graubard, Survey Methodology 1998, 24(2):193-201), but no less than the
    patients. The score interval (Wilson, JASA 1927, 22(158):209-212) holds for four images as for
    four thousand, where percentiles of replicates do not. At 0 or 1 the exact binomial bound on
    the patients (Clopper & Pearson, Biometrika 1934, 26(4):404-413): with all of n right, the lower
    one is 0.025^(1/n). Fewer than `FEW` patients cannot tell how alike their eyes are: of them each
    image is `worth` as much as elsewhere in the sample, at 0 and 1 too, where the exact bound on
    three patients says next to nothing (of 100 patients at screening prevalence it made the mean
    recall's interval hold the truth in 98% of drawn sets, this in 96%).
    """
    defined = replicates[~np.isnan(replicates)]
    if not units or not len(defined):
        return None
    n, z, spread = float(units), ndtri(0.975), defined.var()
    if units < FEW:
        n = max(n, images * worth)
    elif value in (0.0, 1.0):
        margin = 0.025 ** (1 / units)
        return [margin, 1.0] if value else [0.0, 1 - margin]
    elif spread > 0:
        independent = value * (1 - value) / spread * (z / stdtrit(units - 1, 0.975)) ** 2
        n = float(np.clip(independent, units, images))
    middle = (value + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(value * (1 - value) / n + z**2 / (4 * n**2))
    return [float(max(middle - half, 0.0)), float(min(middle + half, 1.0))]


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


def ratio_interval(
    part: float, part_bounds: list[float], whole: float, whole_bounds: list[float]
) -> list[float]:
    """The 95% interval of part / whole, two shares of different images, from that of each (Donner
    & Zou, Statistical Methods in Medical Research 2012, 21(4):347-359): the ratio may be 0, where
    its replicates would tell nothing. whole > 0."""
    (low, high), (least, most) = part_bounds, whole_bounds
    both = part * whole

    def end(bound: float, other: float, side: int) -> float:
        rest = both**2 - bound * other * (2 * part - bound) * (2 * whole - other)
        return float((both + side * np.sqrt(max(rest, 0.0))) / (other * (2 * whole - other)))

    return [max(end(low, most, -1), 0.0), end(high, least, 1)]
