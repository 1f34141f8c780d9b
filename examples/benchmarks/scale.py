"""What a million photographs take, and a hundred million: each claim of examples/scale.md that can
be simulated, in a process of its own, with its seconds and the most memory that it took. Seconds
are of one core (processor time), so that other work on the machine counts less.

    python examples/benchmarks/scale.py                # as examples/scale.md has it
    python examples/benchmarks/scale.py --only order --count 1000000

    order    the order of an epoch, drawn as training draws it
    index    what a cache of so many crops holds, looked up: shards with real entries, empty crops
    stream   a list graded: one path of 5,000 is a photograph, the others are missing
    eval     a table of predictions scored by dr eval --predictions
    pairs    every photograph compared with every other, on random hashes
    content  what files hold, read once: 40 files of 4 MB under so many names

Tables of labels: examples/benchmarks/read_tables.py. Nothing here is photographs but one, drawn.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from compete import seconds

ROOT = Path(__file__).parents[2]
Measured = tuple[float, str]  # core seconds, and what else is to be said


def order(count: int, folder: Path) -> Measured:
    from dr_cli import randomness

    start = time.process_time()
    drawn = randomness.order(0, 1, count)
    taken = time.process_time() - start
    return taken, f"{drawn.nbytes / 1e9:.2f} GB of it kept"


def index(count: int, folder: Path) -> Measured:
    """The crops are holes in the files: they take no disk, and nobody looks at them."""
    from dr_cli.photographs import cache

    rng, size = np.random.default_rng(0), 512
    rows = cache._rows_a_shard(count, 3 * size**2)
    for first in range(0, count, rows):
        some = min(rows, count - first)
        entries = np.zeros(some, cache._ENTRY)
        entries["key"] = np.frombuffer(rng.bytes(16 * some), "V16")
        content = entries.tobytes()
        with (folder / f"{first:012}.crops").open("wb") as shard:
            shard.truncate(some * 3 * size**2)
            shard.seek(0, os.SEEK_END)
            shard.write(content + cache._END.pack(cache._MAGIC, some, size, zlib.crc32(content)))
    start = time.process_time()
    found = cache._index(folder, size)
    taken = time.process_time() - start
    assert len(found) == count
    return taken, f"{-(-count // rows):,} shards, {count * 3 * size**2 / 1e12:.2f} TB of crops"


def stream(count: int, folder: Path) -> Measured:
    import inference
    from PIL import Image

    from dr_cli import Grader
    from dr_cli.cli.rows import print_records
    from dr_cli.sample import drawn_set

    Image.fromarray(drawn_set.draw(0, 1, "left", 2, 128).pixels).save(folder / "eye.png")
    grader = Grader.load(inference.untrained(folder / "run", "resnet18", 64))
    eye, memory = str(folder / "eye.png"), list[int]()

    def paths() -> Iterator[str]:
        for number in range(count):
            if number % max(1, count // 10) == 0:
                memory.append(resident())
            yield eye if number % 5000 == 0 else f"missing/{number}.png"

    start = time.process_time()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        print_records(grader.predict(paths()), "csv")
    grown = (memory[-1] - memory[1]) / 1e6
    return time.process_time() - start, f"memory grew by {grown:.0f} MB from its first tenth on"


def resident() -> int:
    """Bytes of this process in memory now; 0 where /proc does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0


def evaluate(count: int, folder: Path) -> Measured:
    from dr_cli.cli import app

    rng, table = np.random.default_rng(0), folder / "predictions.csv"
    grades = rng.choice(5, count, p=(0.73, 0.07, 0.15, 0.03, 0.02))
    likely = rng.gamma(1.0, size=(count, 5)) + 2 * np.eye(5)[grades]
    likely /= likely.sum(axis=1, keepdims=True)
    with table.open("w", encoding="utf-8") as out:
        out.write("path,patient,grade,p0,p1,p2,p3,p4\n")
        for k, (grade, row) in enumerate(zip(grades.tolist(), likely.round(6), strict=True)):
            out.write(f"{k}.jpg,{k // 2},{grade},{','.join(map(str, row))}\n")
    start = time.process_time()
    with open(folder / "record.json", "w") as out, redirect_stdout(out):
        app(["eval", "--predictions", str(table), "--format", "json"], standalone_mode=False)
    record = json.loads((folder / "record.json").read_text())
    assert record["n"] == count
    return time.process_time() - start, f"QWK {record['qwk']['ci95']}"


def pairs(count: int, folder: Path) -> Measured:
    from dr_cli.photographs import duplicates

    bits = np.frombuffer(np.random.default_rng(0).bytes(128 * count), np.uint64).reshape(-1, 16)
    start = time.process_time()
    duplicates.find_near(bits, np.arange(count))
    taken = time.process_time() - start
    each = taken / (count * (count - 1) / 2)
    told = ", ".join(f"{n:,}: {each * n * n / 2 / 3600:,.1f} h" for n in (10**6, 10**8))
    return taken, f"{each * 1e9:.2f} ns a pair; {told}"


def content(count: int, folder: Path) -> Measured:
    from dr_cli.photographs import cache

    os.environ["DR_CACHE"] = str(folder / "cache")
    for k in range(40):
        (folder / f"{k}.jpg").write_bytes(os.urandom(4_000_000))
    links = [f"{k}.jpg" if k < 40 else f"link-{k}.jpg" for k in range(count)]
    for k in range(40, count):
        os.link(folder / f"{k % 40}.jpg", folder / links[k])

    def look() -> None:
        cache.contents(folder, links, cache.keys(folder, links), workers=2)

    taken, again = seconds(look, time.process_time), seconds(look, time.process_time)
    rate = count * 4e6 / taken / 1e9
    return taken, f"{rate:.1f} GB a core second, from memory; known again in {again:.2f} s"


PARTS: dict[str, tuple[Callable[[int, Path], Measured], tuple[int, ...]]] = {
    "order": (order, (10**6, 10**8)),
    "index": (index, (10**5, 10**6)),
    "stream": (stream, (10**5, 10**6)),
    "eval": (evaluate, (10**5, 10**6)),
    "pairs": (pairs, (20_000, 88_702)),
    "content": (content, (1000,)),
}


def peak() -> float:
    """GiB at most in this process."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    return most / (2**30 if sys.platform == "darwin" else 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="may be repeated")
    parser.add_argument("--count", type=int, help="in place of its own")
    parser.add_argument("--at", help="a folder for what is made")
    parser.add_argument("--here", action="store_true", help="this one part, in this process")
    asked = parser.parse_args()
    if asked.here:
        [name] = asked.only
        with tempfile.TemporaryDirectory(dir=asked.at) as folder:
            taken, told = PARTS[name][0](asked.count, Path(folder))
        print(f"{name:8} {asked.count:>12,} {taken:9.2f} {peak():9.2f}  {told}")
        return
    print(f"{'part':8} {'count':>12} {'seconds':>9} {'GiB':>9}")
    for name in asked.only or PARTS:
        for count in [asked.count] if asked.count else PARTS[name][1]:
            again = [sys.executable, __file__, "--here", "--only", name, "--count", str(count)]
            at = ["--at", asked.at] if asked.at else []
            path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
            done = subprocess.run([*again, *at], env=os.environ | {"PYTHONPATH": path}, check=False)
            if done.returncode:
                print(f"{name:8} {count:>12,}  failed (exit code {done.returncode})", flush=True)


if __name__ == "__main__":
    main()
