"""How long a large data set takes from a table and a folder of files to its splits.

Lays out Kaggle EyePACS in full (35,126 + 53,576 = 88,702 rows with as many empty files), and with
`--rows` any number, in a temporary folder; then reads, matches and splits it in a process of its
own and prints seconds and peak memory. Images are not decoded: this is about tables and names.

    python examples/benchmarks/read_tables.py --rows 10000 --rows 88702 --rows 1000000
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from pathlib import Path

MEASURE = """
import sys, time
start = time.perf_counter()
from dr_cli.labels import reading, splits
from dr_cli.scoring.baselines import count_leaks, score_baselines
imported = time.perf_counter()
data = reading.read(sys.argv[1])
read = time.perf_counter()
splits.assign(data.table)
table = splits.assign(data.table, split_by="patient")
done = time.perf_counter()
count_leaks(table), score_baselines(table), reading.fingerprint(table)
end = time.perf_counter()
try:
    import resource
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB, on macOS bytes
    peak /= 2**30 if sys.platform == "darwin" else 2**20
except ImportError:  # Windows
    peak = float("nan")
assert data.images_found == len(table)
print(f"{len(table):>9,} {imported - start:8.2f} {read - imported:8.2f} {done - read:8.2f}"
      f" {end - done:8.2f} {end - imported:8.2f} {peak:8.2f}", flush=True)
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
    sizes = parser.parse_args().rows or [10_000, 88_702, 1_000_000]
    print("     rows   import     read   assign   judge    sum/s peak/GiB")
    for rows in sizes:
        with tempfile.TemporaryDirectory() as folder:
            lay_out(Path(folder), rows)
            subprocess.run([sys.executable, "-c", MEASURE, folder], check=True)


if __name__ == "__main__":
    main()
