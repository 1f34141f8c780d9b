"""Whether `dr predict` stays as small as it begins: its memory over very many paths.

    python examples/benchmarks/memory.py --paths 100000

Grades the same few small pictures again and again with a ResNet18 at 32 px, and prints the
memory of the process (resident, MiB) after the first 1,000 paths and at the end. Linux.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

from inference import untrained
from PIL import Image

from dr_cli import Grader


def resident() -> float:
    """MiB in RAM that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paths", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for k in range(8):
            Image.new("RGB", (48, 48), (20 * k, 90, 30)).save(folder / f"{k}.png")
        grader = Grader.load(untrained(folder / "run", "resnet18", 32))
        paths = itertools.islice(itertools.cycle(sorted(folder.glob("*.png"))), options.paths)
        start = time.perf_counter()
        for done, _ in enumerate(grader.predict(paths, batch_size=64), start=1):
            if done == 1_000:
                first = resident()
            if done % 10_000 == 0:
                print(f"{done:,} paths: {resident():.0f} MiB, {time.perf_counter() - start:.0f} s")
        print(f"grown by {resident() - first:.1f} MiB after the first 1,000")


if __name__ == "__main__":
    main()
