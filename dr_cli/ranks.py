"""The processes that do one thing together, as `torchrun` started them: PyTorch's own engine.

Each runs the same program. What they say to each other goes through here: who is first (it alone
speaks and writes), what each has found, who takes which share. Alone, every method does what is to
be done without a word, and without importing `torch.distributed`.
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from dr_cli import interrupts
from dr_cli.errors import DrError, PartedError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

T = TypeVar("T")
S = TypeVar("S", "np.ndarray[Any, Any]", list[Any])
_patient: list[Any] = []  # within `joined` the process group for what may take long
TIMEOUT = 300.0  # seconds for which a process waits for the others within a step
_LONG = timedelta(days=7)  # for whoever makes the cache, or trains more folds than the others
GRACE = 2.0  # seconds in which the one that says why all end may do so, before others end it
# What torch, gloo and NCCL raise where another process is gone or says nothing for too long.
_PARTED = ("connection closed by peer", "connection reset", "timed out", "timeout", "broken pipe",
           "gloo/transport", "ncclremoteerror", "nccl communicator was aborted")  # fmt: skip


@dataclass(frozen=True)
class Ranks:
    """This process's place among `count` that do one thing together.

    rank: from 0, over all machines; local: the same on this machine, where `beside` run.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    beside: int = 1

    @classmethod
    def of_environment(cls) -> "Ranks":
        """As torchrun tells; alone where nobody does. Raises UsageError for half of it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        told = [os.environ.get(name) or "" for name in names]
        if told[1] in ("", "1"):
            return cls()
        if missing := [name for name, text in zip(names, told, strict=True) if not text.isdigit()]:
            raise UsageError(
                f"WORLD_SIZE is {told[1]}, but {missing[0]} does not say which process this is: "
                "start them with torchrun"
            )
        if missing := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
            raise UsageError(
                f"WORLD_SIZE is {told[1]}, but {missing[0]} does not say where the others are: "
                "start them with torchrun"
            )
        return cls(*(int(text) for text in told))

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        """Whether there is no other one."""
        return self.count == 1

    # -- being together

    @contextmanager
    def joined(self, device: "torch.device", seconds: float = TIMEOUT) -> Iterator[None]:
        """A block in which the processes hear each other; seconds: for how long one that says
        nothing is waited for.

        Whatever one of them raises in it ends them all. What it raises has `spoken`: whether
        another process has said before why, so that a person reads it once. Those that lose
        another one raise PartedError.
        """
        if self.alone:
            yield
            return
        from torch import distributed as dist

        where = f"cuda:{self.local}" if device.type == "cuda" else None
        backend = "cpu:gloo,cuda:nccl" if where else "gloo"
        shared, _, _ = next(dist.rendezvous("env://"))
        # torchrun's own store outlives a restart, and with it what the dead have left there: gloo
        # then waited for them without end. Over several machines the count is not the same for
        # all; there TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 makes a new store each time.
        attempt = _count_restarts() if self.beside == self.count else 0
        store = dist.PrefixStore(f"dr/{attempt}", shared)
        try:
            wait = timedelta(seconds=seconds)
            with _stdout_kept():
                dist.init_process_group(
                    backend, store=store, rank=self.rank, world_size=self.count, timeout=wait
                )
                _patient.append(dist.new_group(backend="gloo", timeout=_LONG))
            yield
        except GeneratorExit:  # no error: who reads has enough
            raise
        except BaseException as error:
            known = self.explain(error)
            known.spoken = not self._may_say(store, known)  # type: ignore[attr-defined]
            if known is error:
                raise
            raise known from error
        finally:
            _patient.clear()
            with suppress(Exception):  # of one whose others are gone
                dist.destroy_process_group()

    def explain(self, error: BaseException) -> BaseException:
        """The same; or, of an error that only means that another process is gone, what that is."""
        text = str(error).lower()
        if not isinstance(error, RuntimeError) or not any(part in text for part in _PARTED):
            return error
        if (asked := interrupts.asked()) is not None:
            return interrupts.Interrupted(asked)
        return PartedError(
            f"another of the {self.count} processes is gone, or has said nothing for --rank-timeout"
        )

    def _may_say(self, store: Any, error: BaseException) -> bool:
        """Whether nobody has said this: an error is told once, by whom it happened to."""
        with suppress(Exception):  # where the store is gone nobody can be asked
            if isinstance(error, PartedError):
                if not self.first:
                    return False
                time.sleep(GRACE)
                return store.add("said", 0) == 0
            return store.add("said", 1) == 1
        return self.first

    # -- what they say to each other, within `joined`; all must call the same in the same order

    def gather(self, value: T) -> list[T]:
        """What each has, by rank; anything that can be pickled."""
        if self.alone:
            return [value]
        from torch import distributed as dist

        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def gather_numbers(self, *numbers: int) -> list[list[int]]:
        """The same of a few integers, in 0.1 ms: [count][how many]."""
        if self.alone:
            return [list(numbers)]
        import torch
        from torch import distributed as dist

        own = torch.tensor(numbers, dtype=torch.int64)
        found = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(found, own)
        return [each.tolist() for each in found]

    def from_first(self, work: Callable[[], T]) -> T:
        """What the first process gets from `work`, for all. What it raises ends them all."""
        if self.alone:
            return work()
        from torch import distributed as dist

        told = [work() if self.first else None]
        dist.broadcast_object_list(told, 0, _patient[0])
        return told[0]  # type: ignore[return-value]

    def wait(self) -> None:
        """Until all are here, however long it takes."""
        if not self.alone:
            from torch import distributed as dist

            dist.barrier(_patient[0])

    def in_turn(self, work: Callable[[], T]) -> T:
        """Each process's own; on each machine one does it before the others: what it leaves in the
        cache is found by them."""
        if self.local:
            self.wait()
        found = work()
        if not self.local:
            self.wait()
        return found

    def agree(self, rows: "pd.DataFrame") -> None:
        """Raises DrError unless all have found the same photographs: each takes its share by
        number, and of other photographs it would be a share of something else."""
        if self.alone:
            return
        from pandas.util import hash_pandas_object

        numbers = hash_pandas_object(rows, index=False).to_numpy()
        if len(set(self.gather(hashlib.sha256(numbers.tobytes()).digest()))) > 1:
            raise DrError(
                f"the {self.count} processes have not found the same photographs: see that all are "
                "there on every machine, and start again"
            )

    def align(self, network: "torch.nn.Module") -> None:
        """The first one's weights and batch statistics for all."""
        if self.alone:
            return
        from torch import distributed as dist

        for tensor in network.state_dict().values():
            dist.broadcast(tensor, 0)

    # -- who does what

    def share(self, items: S) -> S:
        """This process's part of an array or list: one stretch, those of all in order of rank."""
        begin, end = (len(items) * rank // self.count for rank in (self.rank, self.rank + 1))
        return items[begin:end]

    def every(self, items: Sequence[T]) -> Sequence[T]:
        """This process's of some whole tasks: every `count`-th."""
        return items[self.rank :: self.count]

    # -- torchrun's own doings

    def were_restarted(self) -> bool:
        """Whether torchrun has started these processes again, after one of them died: on the
        machine where that was it says so. Within `joined`."""
        return any(count for (count,) in self.gather_numbers(_count_restarts()))

    @property
    def launch(self) -> str:
        """What tells this call of torchrun from others, also after it started its processes again:
        its --rdzv-id, else the process that started the first one."""
        from socket import gethostname  # on use: 7 ms that `dr --help` need not spend

        given = os.environ.get("TORCHELASTIC_RUN_ID", "none")
        return given if given not in ("", "none") else f"{gethostname()}-{os.getppid()}"


ALONE = Ranks()


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """What is written to stdout goes to stderr: Gloo of torch 2.9 tells there who is connected."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _count_restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT") or 0)


def is_spoken(error: BaseException) -> bool:
    """Whether another process says this. Outside of `joined` errors are of what all were asked for,
    and said once a machine."""
    try:
        return getattr(error, "spoken", Ranks.of_environment().local > 0)
    except UsageError:
        return False
