"""Photographs that several processes grade together: a round after the other, in one order."""

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from typing import TypeVar

import torch

from dr_cli.network.batching import in_batches
from dr_cli.ranks import Ranks

Item = TypeVar("Item")
Result = TypeVar("Result")
BATCHES = 16  # of a process in a round: between rounds it waits for the others


def in_rounds(
    work: Callable[[Sequence[Item]], Iterable[Result]],
    items: Iterable[Item],
    size: int,
    ranks: Ranks,
) -> Generator[Result, None, None]:
    """What `work` makes of all items, in their order, in the first process; in the others nothing.

    The first process alone walks the items, so far as a round goes: BATCHES of `size` for each, or
    as many as there are where they come slowly. Each process works on its share of them, on a CPU
    or a GPU of its own; what one raises ends them all: see `Ranks.joined`.
    """
    source = items if ranks.first else ()
    ahead = in_batches(_same, source, 1, BATCHES * size * ranks.count)
    with ranks.joined(torch.device("cpu")), closing(ahead) as rounds:
        try:
            while some := ranks.from_first(lambda: next(rounds, [])):
                own = ranks.share(some)
                done = list(work(own)) if own else []
                ranks.wait()  # each file of a share that hangs may take a minute
                for found in ranks.gather(done):
                    yield from found if ranks.first else ()
        except GeneratorExit:  # nobody reads on, as behind `| head`: the others end, too
            with suppress(RuntimeError):
                ranks.from_first(list)
            raise


def _same(item: Item) -> Item:
    return item
