"""How long a large data set takes from a table and a folder of files to its splits.

Lays out Kaggle EyePACS in full (35,126 + 53,576 = 88,702 rows with as many empty files), and with
`--rows` any number, in a temporary folder (`--at`: where there are so many inodes); then reads,
matches and splits it in a process of its own and prints seconds and peak memory. Images are not
decoded: this is about tables and names, and `known`: telling by size and time which files were
decoded before. `--against COMMIT` does the same with the program as it was then, in turns.

    python examples/benchmarks/read_tables.py --rows 10000 --rows 88702 --rows 1000000
"""

import argparse
import csv
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MEASURE = """
import sys, time
start = time.perf_counter()
from dr_cli.labels import reading, splits
from dr_cli.photographs import cache
from dr_cli.scoring.baselines import count_leaks, score_baselines
imported = time.perf_counter()
data = reading.read(sys.argv[1])
read = time.perf_counter()
splits.assign(data.table)
table = splits.assign(data.table, split_by="patient")
done = time.perf_counter()
count_leaks(table), score_baselines(table), reading.fingerprint(table)
end = time.perf_counter()
cache.keys(data.root, data.table["path"].tolist())
known = time.perf_counter()
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    peak /= 2**30 if sys.platform == "darwin" else 2**20
except ImportError:  # Windows
    peak = float("nan")
assert data.images_found == len(table)
print(f"{len(table):>9,} {imported - start:8.2f} {read - imported:8.2f} {done - read:8.2f}"
      f" {end - done:8.2f} {known - end:8.2f} {known - imported:8.2f} {peak:8.2f}  {sys.argv[2]}",
      flush=True)
"""


def lay_out(root: Path, rows: int) -> None:
    """Two eyes a patient; two fifths train, the rest test, an eighth of that public."""
    train = rows * 2 // 5 // 2 * 2
    for folder, table, start, stop in (
        ("train", "trainLabels.csv", 0, train),
        ("test", "retinopathy_solution.csv", train, rows),
    ):
        (root / folder).mkdir()
        with (root / table).open("w", newline="", encoding="utf-8") as file:
            out = csv.writer(file)
            out.writerow(["image", "level"] + ["Usage"] * (folder == "test"))
            for i in range(start, stop):
                name = f"{i // 2}_{('left', 'right')[i % 2]}"
                grade = (0, 0, 0, 0, 0, 0, 0, 1, 2, 2, 3, 4)[i * 7919 % 12]
                usage = ["Public" if i // 2 % 5 == 0 else "Private"] * (folder == "test")
                out.writerow([name, grade, *usage])
                (root / folder / f"{name}.jpeg").touch()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, action="append", help="default: 10000, 88702, 1000000")
    parser.add_argument("--at", help="a folder with room for so many files")
    parser.add_argument("--against", metavar="COMMIT", help="of this repository")
    parser.add_argument("--turns", type=int, default=1)
    asked = parser.parse_args()
    print("     rows   import     read   assign    judge    known    sum/s peak/GiB")
    with tempfile.TemporaryDirectory() as aside:
        programs = {"now": ROOT}
        if asked.against:
            packed = subprocess.check_output(["git", "archive", asked.against, "dr_cli"], cwd=ROOT)
            with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
                archive.extractall(aside, filter="data")
            programs = {asked.against: Path(aside), **programs}
        for rows in asked.rows or [10_000, 88_702, 1_000_000]:
            with tempfile.TemporaryDirectory(dir=asked.at) as folder:
                lay_out(Path(folder), rows)
                for _ in range(asked.turns):
                    for name, place in programs.items():
                        measure(folder, name, place)


def measure(folder: str, name: str, program: Path) -> None:
    command = [sys.executable, "-c", MEASURE, folder, name]
    subprocess.run(command, check=True, cwd=program)  # where `-c` looks first


if __name__ == "__main__":
    main()
