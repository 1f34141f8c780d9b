"""Faults done to `dr` on purpose, one after another, and what was lost: a Markdown table.

    python examples/benchmarks/faults.py                     # all of them, minutes to an hour
    python examples/benchmarks/faults.py --list
    python examples/benchmarks/faults.py --only SIGKILL --tries 20 --seed 7

Trial k of a fault draws from (seed, fault, k) alone, so that one that fails is done again by
`--only NAME --first K --tries 1`. Trainings are real ones, of drawn eyes of 64 pixels, each in a
process of its own. A disk in memory (TMPDIR=/dev/shm) makes it twice as fast. The exit code is 1
where anything was lost.
"""

import argparse
import importlib
import os
import sys
import tempfile
import time
import zlib
from pathlib import Path

for threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[threads] = "1"  # before numpy is loaded: a process forked with threads may hang

import numpy as np  # noqa: E402
from trials import FAULTS, Fault, Lost, Skipped, Trial  # noqa: E402

# Rooms of `trials`, each with faults of a kind, in the order of the table.
ROOMS = ("killed", "stopped", "storage", "together", "hostile", "fuzzed", "soaked")


def main() -> int:
    """All that was asked for; 1 where anything was lost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of all trials (0)")
    parser.add_argument(
        "--only", metavar="NAME", action="append", help="faults whose name holds this; repeatable"
    )
    parser.add_argument("--tries", type=int, help="of each fault, in place of its own number")
    parser.add_argument("--first", type=int, default=0, help="number of the first trial (0)")
    parser.add_argument("--list", action="store_true", help="name the faults and do none")
    asked = parser.parse_args()
    for room in ROOMS:
        importlib.import_module(f"trials.{room}")
    names = [name.lower() for name in asked.only or [""]]
    chosen = [fault for fault in FAULTS if any(name in fault.name.lower() for name in names)]
    if asked.list:
        print(*(f"{fault.tries:>6}  {fault.name}" for fault in chosen), sep="\n")
        return 0
    if not chosen:
        parser.error(f"--only {' '.join(names)}: no such fault; see --list")
    print(
        "| fault | tried | survived | lost | seconds |\n| --- | --: | --: | --- | --: |", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="dr-faults-") as folder:
        lost = [do(fault, asked, Path(folder)) for fault in chosen]
    return int(any(lost))


def do(fault: Fault, asked: argparse.Namespace, folder: Path) -> bool:
    """A fault's trials and its row of the table; whether anything was lost."""
    tries, lost, skipped = asked.tries or fault.tries, [], ""
    begun, done = time.perf_counter(), 0
    for number in range(asked.first, asked.first + tries):
        rng = np.random.default_rng([asked.seed, zlib.crc32(fault.name.encode()), number])
        with tempfile.TemporaryDirectory(dir=folder) as own:
            try:
                done += fault.work(Trial(rng, Path(own), folder / "kept", number)) or 1
            except Skipped as why:
                skipped = str(why)
                break
            except Lost as what:
                done += 1
                lost.append(str(what))
                print(f"{fault.name}, trial {number}: {what}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - begun
    told = "; ".join(dict.fromkeys(lost[:3])) or (f"not tried: {skipped}" if skipped else "nothing")
    row = (fault.name, f"{done:,}", f"{done - len(lost):,}", told, f"{seconds:.0f}")
    print(f"| {' | '.join(row)} |", flush=True)
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
