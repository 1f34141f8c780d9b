"""Several processes of one program, as torchrun would start them, without its agent."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def start(work: str, count: int = 2) -> list[subprocess.Popen[str]]:
    """Processes that run a function of a module, `work` as module:function(arguments), together."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    module, call = work.split(":")
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count), "OMP_NUM_THREADS": "1"}  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, "-c", f"import {module} as m; m.{call}"],
            env=os.environ | told | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
