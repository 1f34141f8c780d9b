"""`dr train --processes N`: the short form of torchrun on one machine, by the same launcher."""

import dataclasses
import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence
from typing import Any

from dr_cli import machine
from dr_cli.errors import DrError

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"  # handed on to the processes
PATIENCE = 30  # seconds in which they may finish their step and save


def launch(arguments: Sequence[str], processes: int, restarts: int = 0) -> int:
    """Runs `dr` with these arguments in so many processes; the exit code of the one that failed
    first, 0 where none did, 128 and the number of a signal that came.

    restarts: how often all are started again after one has died; they go on with the run. On a CPU
    each has its part of the cores. Raises DrError where a process was killed.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable()  # the processes speak for themselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, machine.cores() // processes)))
    options: dict[str, Any] = {
        "min_nodes": 1, "max_nodes": 1, "nproc_per_node": processes, "run_id": uuid.uuid4().hex,
        "rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "max_restarts": restarts,
        "signals_to_handle": SIGNALS, "shutdown_timeout": PATIENCE,
    }  # fmt: skip
    known = {field.name for field in dataclasses.fields(LaunchConfig)}  # the last two are new
    config = LaunchConfig(**{name: value for name, value in options.items() if name in known})
    try:
        elastic_launch(config, sys.executable)("-m", "dr_cli", *arguments)
    except SignalException as stopped:
        return 128 + stopped.sigval
    except ChildFailedError as failed:
        rank, failure = failed.get_first_failure()
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            raise DrError(f"process {rank} of {processes} was killed ({name})") from failed
        return failure.exitcode
    return 0
