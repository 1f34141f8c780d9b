import threading
from itertools import count

import pytest

from dr_cli.network.batching import in_batches


def test_order_is_kept_and_batches_are_full_where_the_items_are_there():
    done = list(in_batches(lambda n: n * n, range(10), threads=3, size=4))
    assert done == [[0, 1, 4, 9], [16, 25, 36, 49], [64, 81]]
    assert list(in_batches(str, [], threads=1, size=4)) == []


def test_one_item_is_handed_over_while_the_next_is_not_there_yet():
    go_on = threading.Event()

    def slow():
        yield 1
        assert go_on.wait(30)
        yield 2

    batches = in_batches(str, slow(), threads=1, size=8)
    assert next(batches) == ["1"]  # waiting for 2 would never end
    go_on.set()
    assert list(batches) == [["2"]]


def test_no_more_than_three_batches_are_taken_ahead():
    taken = count()
    numbers = (next(taken) for _ in range(10_000))
    batches = in_batches(str, numbers, threads=2, size=5)
    for _ in range(4):
        assert len(next(batches)) == 5
    batches.close()
    assert next(taken) <= 4 * 5 + 2 * 5 + 2  # given, waiting, and one in either hand


def test_what_the_items_raise_comes_after_what_they_gave():
    def broken():
        yield from (1, 2, 3)
        raise RuntimeError("no more")

    batches = in_batches(str, broken(), threads=2, size=2)
    assert next(batches) == ["1", "2"]
    assert next(batches) == ["3"]
    with pytest.raises(RuntimeError, match="no more"):
        next(batches)


def test_what_the_work_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        list(in_batches(lambda n: 1 / n, [1, 0], threads=1, size=1))
