"""Faults done to `dr` on purpose, one after another, and what was lost: a Markdown table.

    python examples/benchmarks/faults.py --out faults.jsonl  # all of them, an hour or two
    python examples/benchmarks/faults.py --list
    python examples/benchmarks/faults.py --only SIGKILL --tries 20 --seed 7

Trial k of a fault draws from (seed, fault, k) alone, so that one that fails is done again by
`--only NAME --first K --tries 1`. With `--out` each trial is kept as it ends, and those that stand
in the file are not done again: the same command goes on where it was broken off. Trainings are real
ones, of drawn eyes of 64 pixels, each in a process of its own. A disk in memory (TMPDIR=/dev/shm)
makes it twice as fast. The exit code is 1 where anything was lost.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

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
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON lines, a trial each")
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
    kept = read_kept(asked.out, asked.seed)
    print(
        "| fault | tried | survived | lost | seconds |\n| --- | --: | --: | --- | --: |", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="dr-faults-") as folder:
        rows = [do(fault, asked, kept, Path(folder)) for fault in chosen]
    seconds = sum(each["seconds"] for row in rows for each in row)
    print(f"{seconds:,.0f} seconds in all", file=sys.stderr)
    return int(any(each["lost"] for row in rows for each in row))


def read_kept(out: Path | None, seed: int) -> dict[tuple[str, int], dict[str, Any]]:
    """The trials of this seed that stand in --out, by fault and number; a last line that was cut
    off is done again."""
    if out is None or not out.exists():
        return {}
    whole = [line for line in out.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    out.write_text("".join(f"{line}\n" for line in whole), encoding="utf-8")
    records = [record for record in map(json.loads, whole) if record["seed"] == seed]
    return {(record["fault"], record["trial"]): record for record in records}


def do(
    fault: Fault, asked: argparse.Namespace, kept: dict[tuple[str, int], Any], folder: Path
) -> list[dict[str, Any]]:
    """A fault's trials, and its row of the table."""
    records, skipped = list[dict[str, Any]](), ""
    for number in range(asked.first, asked.first + (asked.tries or fault.tries)):
        record = kept.get((fault.name, number))
        if record is None:
            try:
                record = {"fault": fault.name, "trial": number, "seed": asked.seed}
                record |= try_once(fault, number, asked.seed, folder)
            except Skipped as why:
                skipped = f"not tried: {why}"
                break
            if asked.out:
                with asked.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
        records.append(record)
    lost = [record["lost"] for record in records if record["lost"]]
    done, seconds = (sum(record[name] for record in records) for name in ("done", "seconds"))
    told = "; ".join(dict.fromkeys(lost[:3])) or skipped or "nothing"
    row = (fault.name, f"{done:,}", f"{done - len(lost):,}", told, f"{seconds:,.0f}")
    print(f"| {' | '.join(row)} |", flush=True)
    return records


def try_once(fault: Fault, number: int, seed: int, folder: Path) -> dict[str, Any]:
    """One trial: how many tries it was, what was lost, and the seconds. Raises Skipped."""
    rng, lost, done = np.random.default_rng([seed, zlib.crc32(fault.name.encode()), number]), "", 1
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as own:
        try:
            done = fault.work(Trial(rng, Path(own), folder / "kept", number)) or 1
        except Lost as what:
            lost = str(what)
            print(f"{fault.name}, trial {number}: {what}", file=sys.stderr, flush=True)
    return {"done": done, "lost": lost, "seconds": round(time.perf_counter() - begun, 2)}


if __name__ == "__main__":
    sys.exit(main())
