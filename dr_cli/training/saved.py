"""What last.pt holds, checked: it may come from an earlier `dr`, or from anybody.

torch opens it with `weights_only`, so that nothing is executed. But an optimiser that is handed
moments of other shapes than its weights reads and writes behind their end.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dr_cli.errors import UsageError
from dr_cli.runs import Run

MOMENTS = {"adamw": ({"step", "exp_avg", "exp_avg_sq"},), "sgd": ({"momentum_buffer"}, set())}
FOREIGN = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)  # what others raise
_NUMBER = (int, float, type(None))


def read(path: Path) -> dict[str, Any]:
    """What `Learner.state` gave. Raises UsageError where it is something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        _check_progress(state)
    except Exception as error:  # a foreign pickle raises what it likes
        raise refuse(error, str(path)) from error
    return state


def read_state(run: Run) -> dict[str, Any] | None:
    """last.pt, as `Learner.state` gave it; None where nothing was saved yet."""
    path = run["last.pt"]
    if not path.is_file():
        if run.finished:
            raise UsageError(f"{run.folder} is finished, and has no last.pt to go further from")
        return None
    return read(path)


def refuse(error: Exception, name: str = "last.pt") -> UsageError:
    """The error of a last.pt that is none, or another run's."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return UsageError(f"{name} is not as dr train wrote it ({line}): train a new run")


def _check_progress(state: Mapping[str, Any]) -> None:
    """Raises what FOREIGN names where the rows and counts are none."""
    part, rows, best = state["part"], state["rows"], state["best"]
    if type(rows) is not list or len(part["totals"]) != 2 or len(best) != 2:
        raise TypeError("rows of another kind")
    counts = [part["step"], state["best_epoch"], state.get("peak_epoch", 0)]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise TypeError("a count that is none")
    numbers = [*part["totals"], part["seconds"], part.get("seen"), *best]
    numbers += [value for row in rows for value in row.values()]
    names = [name for row in rows for name in row]
    if not all(type(number) in _NUMBER for number in numbers):
        raise TypeError("a figure that is no number")
    if not all(type(name) is str for name in names) or None in (*part["totals"], *best):
        raise TypeError("a figure that is missing")


def load_optimizer(optimizer: torch.optim.Optimizer, kept: Mapping[str, Any], kind: str) -> None:
    """What the optimiser knew of each weight, and its rate; its other options are today's.

    kind: a name of `MOMENTS`. Raises ValueError where it belongs to other weights.
    """
    own = optimizer.state_dict()["param_groups"]
    own = [group | {"lr": float(kept["param_groups"][0]["lr"])} for group in own]
    optimizer.load_state_dict({"state": kept["state"], "param_groups": own})
    for weight, moments in optimizer.state.items():
        if not isinstance(weight, Tensor) or set(moments) not in MOMENTS[kind]:
            raise ValueError("moments of another optimiser")
        for name, value in moments.items():
            if value is None and kind == "sgd":
                continue
            shape = torch.Size([]) if name == "step" else weight.shape
            if not isinstance(value, Tensor) or value.shape != shape:
                raise ValueError(f"{name} of another shape than its weight")
            if value.ndim:  # in memory of its own, laid out as the weight is
                moments[name] = torch.empty_like(weight).copy_(value)
