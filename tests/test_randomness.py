import numpy as np

from dr_cli import randomness


def test_a_number_depends_on_its_address_alone():
    ids = np.array([3, 99, 7])
    together = randomness.uniform(0, randomness.AUGMENT, 5, ids, 4)
    alone = randomness.uniform(0, randomness.AUGMENT, 5, ids[1:2], 4)
    assert np.array_equal(together[1:2], alone)
    assert together.min() >= 0
    assert together.max() < 1


def test_every_coordinate_matters():
    ids = np.arange(1000)
    base = randomness.uniform(0, 1, 0, ids, 1)[:, 0]
    for other in (
        randomness.uniform(1, 1, 0, ids, 1),
        randomness.uniform(0, 2, 0, ids, 1),
        randomness.uniform(0, 1, 1, ids, 1),
        randomness.uniform(0, 1, 0, ids + 1000, 1),
    ):
        assert abs(np.corrcoef(base, other[:, 0])[0, 1]) < 0.1  # 3 standard errors of 1000 pairs


def test_uniform_is_uniform():
    numbers = randomness.uniform(7, 1, 3, np.arange(100_000), 1)[:, 0]
    counts, _ = np.histogram(numbers, bins=50, range=(0, 1))
    assert ((counts - 2000) ** 2 / 2000).sum() < 94.6  # chi-square, 49 degrees, p = 1e-4


def test_order_is_a_permutation_and_changes_with_the_epoch():
    first, second = randomness.order(0, 1, 500), randomness.order(0, 2, 500)
    assert np.array_equal(np.sort(first), np.arange(500))
    assert not np.array_equal(first, second)
    assert np.array_equal(first, randomness.order(0, 1, 500))
