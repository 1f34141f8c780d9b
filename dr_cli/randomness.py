"""Counter-based randomness: each number is a function of its address, never of a history.

An address is (seed, stream, epoch, sample id, draw). So nothing depends on the number of
workers or ranks, on the batch a sample fell into, or on where a run was resumed. The mixer
is SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014), applied once per coordinate.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

ORDER, AUGMENT, DRAWN = 1, 2, 3  # streams: what a number is for

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))


def uniform(
    seed: int, stream: int, epoch: int, ids: NDArray[Any], draws: int
) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), [len(ids), draws] float64, one row a sample id (int, >= 0)."""
    with np.errstate(over="ignore"):
        state = np.zeros((1, 1), np.uint64)
        for coordinate in (seed, stream, epoch):
            state = _mix((state + _GOLDEN) ^ np.array(coordinate % 2**64, np.uint64))
        rows = _mix((state + _GOLDEN) ^ np.asarray(ids).astype(np.uint64)[:, None])
        bits = _mix((rows + _GOLDEN) ^ np.arange(draws, dtype=np.uint64)[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def order(seed: int, epoch: int, n: int) -> NDArray[np.int64]:
    """The order in which epoch `epoch` sees n samples: a permutation, [n] int64."""
    keys = uniform(seed, ORDER, epoch, np.arange(n), 1)[:, 0]
    return np.argsort(keys, kind="stable")
