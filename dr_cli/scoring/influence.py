"""What each patient moves a figure by: the jackknife, of which intervals and tests are made.

An influence is how much the figure is larger with a patient than without, all their images
together, made a little larger for few patients, so that the sum of its squares is the figure's
variance (Efron & Stein, Annals of Statistics 1981, 9(3):586-596). Nothing is drawn: they are the
same every time, and cost one pass over the patients.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.scoring.metrics import Floats, divide


def of_counts(
    figure: Callable[[NDArray[np.float64]], Floats],
    truth: NDArray[np.int64] | NDArray[np.bool_],
    said: NDArray[np.int64] | NDArray[np.bool_],
    kinds: int,
    unit: NDArray[np.int64],
) -> Floats:
    """On a figure of confusion counts [..., kinds, kinds] -> [...]: truth, said, unit [N] ->
    influences [units]. NaN where a patient left out leaves the figure undefined."""
    units, cell = int(unit.max()) + 1, truth * kinds + said
    each = np.bincount(unit * kinds**2 + cell, minlength=units * kinds**2)
    each = each.reshape(units, kinds, kinds)
    whole = each.sum(axis=0, dtype=np.float64)
    return scale(figure(whole[None]) - figure(whole - each))


def of_area(truth: NDArray[np.bool_], score: Floats, unit: NDArray[np.int64]) -> Floats | None:
    """On an area under the ROC curve: truth, score, unit [N] -> influences [units]; None where a
    class has fewer than two patients.

    The images' placements among those of the other class (DeLong, DeLong & Clarke-Pearson,
    Biometrics 1988, 44(3):837-845), summed by patient (Obuchowski, Biometrics 1997, 53(2):567-578).
    """
    units = int(unit.max()) + 1
    influences = np.zeros(units)
    for of, against, sign in ((truth, ~truth, 1), (~truth, truth, -1)):
        patients = len(np.unique(unit[of]))
        if patients < 2:
            return None
        below = share_below(score[against], score[of])
        moved = sign * (below - below.mean()) / len(below)
        influences += np.bincount(unit[of], moved, units) * np.sqrt(patients / (patients - 1))
    return influences


def of_ratio(part: NDArray[Any], whole: NDArray[Any]) -> Floats:
    """On the sum of one column of the patients by that of another: [units] each -> [units]. NaN
    where one patient has the whole of it."""
    parts, wholes = part.sum(), whole.sum()
    return scale(divide(parts, wholes) - divide(parts - part, wholes - whole))


def scale(moved: Floats) -> Floats:
    """How much a figure is larger with each unit than without [units] -> influences [units]."""
    return (moved - moved.mean()) * np.sqrt((len(moved) - 1) / len(moved))


def share_below(scores: Floats, than: Floats) -> Floats:
    """Which share of the scores lies below each of `than`, equal ones counting half."""
    ordered = np.sort(scores)
    below, not_above = (np.searchsorted(ordered, than, side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(ordered))
