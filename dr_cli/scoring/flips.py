"""Two runs on the same patients: the patients' shares of a difference, and their signs flipped.

A figure is a sum of its patients' shares, to first order; so is the difference of two runs on the
same patients. If the runs are alike, either could have been the other on any patient, and the
share is as likely with the other sign: p is the chance of as large a sum by such signs. Nothing is
assumed of how many patients carry the difference, where Student's t is too careful if few do
(Efron, Journal of the American Statistical Association 1969, 64(328):1278-1302); and the same signs
for all runs show how the differences of many pairs go together.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri  # type: ignore[import-untyped]

from dr_cli.scoring.intervals import BLOCK
from dr_cli.scoring.metrics import Floats

STEPS = 40  # of Newton; six do, but where nearly all shares must have one sign
NEAR = 1e-9  # of the standard deviation: sums that differ by less are equal


def p_value(shares: Floats) -> float | None:
    """Two-sided p that the sum of the shares [units] is 0; None with fewer than two units, or where
    a share is not known: the figure is undefined without that patient."""
    if len(shares) < 2 or not np.isfinite(shares).all():
        return None
    return float(2 * ndtr(-_find_distance(shares)))


def interval(shares: Floats) -> list[float] | None:
    """The differences that a test at 5% does not reject: it leaves out 0 where `p_value` is below
    0.05. None where all shares are equal, one is not known, or so few patients cannot tell."""
    units, difference = len(shares), float(shares.sum())
    apart = shares - difference / units if units else shares
    error = float(np.sqrt(apart @ apart))
    if units < 2 or not error >= 1e-12:  # NaN, too
        return None
    ends = []
    for side in (1, -1):
        reach = _reach(apart, side * error)
        if reach is None:
            return None
        ends.append(difference - reach)
    return ends


def adjust(
    p_values: Sequence[float | None],
    pairs: NDArray[np.int64],
    shares: Floats,
    flips: int,
    seed: int,
) -> list[float | None]:
    """p-values of pairs of runs, corrected for their number by what the pairs have in common.

    pairs [m, 2] rows of shares [runs, units]. Step-down max T: a pair's p is the chance that, by
    the same signs for all runs, any pair that is not surer is as many standard deviations off 0
    (Westfall & Young, Resampling-based Multiple Testing, 1993; Romano & Wolf, Econometrica 2005,
    73(4):1237-1282). Twenty runs are 190 pairs, but no 190 tests that have nothing to do with each
    other, as which `holm` takes them. `flips` sets of signs cannot tell less than 1 / (flips + 1);
    beyond, it is Holm's. A None stays None.
    """
    beyond = holm(p_values)
    known = np.array([i for i, p in enumerate(p_values) if p is not None], int)
    if len(known) < 2 or not flips:
        return beyond
    own = shares[pairs[known, 0]] - shares[pairs[known, 1]]
    spread = np.sqrt((own**2).sum(axis=1))
    spread = np.where(spread > 0, spread, np.inf)
    seen = np.abs(own.sum(axis=1)) / spread
    order = np.argsort(-seen, kind="stable")
    reached = np.zeros(len(known))
    for sums in _flip(shares, flips, seed):
        drawn = np.abs(sums[:, pairs[known, 0]] - sums[:, pairs[known, 1]]) / spread
        largest = np.maximum.accumulate(drawn[:, order][:, ::-1], axis=1)[:, ::-1]
        reached += (largest > seen[order] + NEAR).sum(axis=0)
        reached += (np.abs(largest - seen[order]) <= NEAR).sum(axis=0) / 2
    joint = np.empty(len(known))
    joint[order] = np.maximum.accumulate((reached + 1) / (flips + 1))
    corrected = list(p_values)
    for i, found in zip(known, joint, strict=True):
        p, by_holm = p_values[i], beyond[i]
        assert p is not None
        assert by_holm is not None
        corrected[i] = float(max(p, min(found, by_holm)))
    return corrected


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 1979,
    6(2):65-70): the k-th smallest of m times m - k + 1, never less than one before it.

    A None stays None and is no comparison.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[i] = largest
    return corrected


def _flip(shares: Floats, flips: int, seed: int) -> Iterator[Floats]:
    """Blocks [b, runs] of the sums of shares [runs, units], each patient's with a sign of its own,
    the same for all runs."""
    units = shares.shape[1]
    generator = np.random.Generator(np.random.Philox(seed))
    rows = max(1, 16 * BLOCK // max(units, 1))
    for start in range(0, flips, rows):
        drawn = min(rows, flips - start)
        bits = np.frombuffer(generator.bytes(drawn * (-(-units // 8))), np.uint8)
        signs = np.unpackbits(bits.reshape(drawn, -1), axis=1, count=units)
        yield 2 * (signs.astype(np.float64) @ shares.T) - shares.sum(axis=1)


def _find_distance(shares: Floats) -> float:
    """How many standard deviations a normal variable lies off 0 as often as the sum of the shares
    does by random signs.

    By the saddle point of the sum's cumulants, ln cosh (Robinson, JRSS B 1982, 44(1):91-101, in the
    form of Barndorff-Nielsen, Biometrika 1991, 78(3):557-563), so that it has no least value. Where
    nearly all shares must have one sign the approximation ends, and the normal one goes on.
    """
    square = float(shares @ shares)
    if square == 0:
        return 0.0
    scaled = np.abs(shares) / np.sqrt(square)
    plain = abs(float(shares.sum())) / np.sqrt(square)
    if plain < 1e-3:
        return plain
    sum_ = min(plain, float(scaled.sum()) * (1 - 1e-6))
    at = sum_
    for _ in range(STEPS):
        slope = np.tanh(at * scaled)
        bend = float((scaled**2) @ (1 - slope**2))
        step = (float(scaled @ slope) - sum_) / max(bend, 1e-300)
        at -= min(max(step, -at), at / 2)  # the function bends: a long step overshoots
        if abs(step) < 1e-9 * at:
            break
    lifted = at * scaled
    cumulant = float((lifted + np.log1p(np.exp(-2 * lifted)) - np.log(2)).sum())
    root = np.sqrt(max(2 * (at * sum_ - cumulant), 1e-300))
    found = root + np.log(at * np.sqrt(bend) / root) / root if bend > 0 else 0.0
    return float(found if found > 0.8 * plain else plain)


def _reach(apart: Floats, start: float) -> float | None:
    """The sum, of the sign of `start`, at which shares that are `apart` from their mean have p =
    0.05; None where none of up to 50 times `start` has."""
    wanted, units = -ndtri(0.025), len(apart)

    def miss(sum_: float) -> float:
        return float(_find_distance(apart + sum_ / units) - wanted)

    low, high = 0.0, start
    while miss(high) < 0:
        low, high = high, 1.5 * high
        if abs(high) > 50 * abs(start):
            return None
    return _find_root(miss, low, high)


def _find_root(miss: Callable[[float], float], low: float, high: float) -> float:
    """Where `miss` is 0 between a place where it is below and one where it is not (the Illinois
    rule: an end that stays counts half)."""
    below, above = miss(low), miss(high)
    for _ in range(60):
        middle = high - above * (high - low) / (above - below)
        found = miss(middle)
        if abs(found) < 1e-7:
            return middle
        if found < 0:
            low, below, above = middle, found, above / 2
        else:
            high, above, below = middle, found, below / 2
    return high
