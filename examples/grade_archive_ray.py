"""Grades an archive of any size on as many machines as a Ray cluster has: `pip install ray`.

    find /archive -name '*.jpg' > list.txt
    python examples/grade_archive_ray.py runs/resnet18 list.txt grades/ --workers 2
    python examples/grade_archive_ray.py runs/resnet18 list.txt grades/ --workers 64 --gpus 1 \
        --address auto                                    # on a cluster that is there

Why Ray, where `torchrun -m dr_cli predict` shares a list out by itself: here each part of the list
is a task, so machines may come and go, a slow one holds up nobody, and a part whose machine died is
graded once more by another. The run, the photographs and `grades/` must be seen by all machines.

Each part is a table of its own, whole or absent, as `dr predict` prints it: started again, what is
there is passed over. Joined they are the table of the whole list, in its order:

    awk 'FNR > 1 || NR == 1' grades/part-*.csv > grades.csv
"""

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import ray

from dr_cli import Grader
from dr_cli.cli.rows import csv_line, to_row
from dr_cli.writing import whole

Part = tuple[Path, list[str]]


@ray.remote(max_restarts=-1, max_task_retries=-1)  # a process or machine that died is replaced
class Worker:
    """One process with a grader of its own, loaded once."""

    def __init__(self, run: str, threads: int) -> None:
        self.grader, self.threads = Grader.load(run), threads

    def grade(self, file: Path, paths: list[str]) -> tuple[int, int]:
        """How many were graded, and how many failed."""
        failed = 0
        with whole(file) as aside, aside.open("w", encoding="utf-8", newline="") as table:
            for number, record in enumerate(self.grader.predict(paths, workers=self.threads)):
                row = to_row(record)
                table.write(csv_line(row) * (number == 0) + csv_line(row.values()))
                failed += record["error"] is not None
        return len(paths) - failed, failed


def cut(listed: Path, folder: Path, size: int) -> Iterator[Part]:
    """The parts of the list that are not graded yet; the list is never in memory as a whole."""
    with listed.open(encoding="utf-8", errors="surrogateescape", newline="\n") as lines:
        paths = (line.rstrip("\n") for line in lines)
        for number in itertools.count():
            if not (part := list(itertools.islice(paths, size))):
                return
            file = folder / f"part-{number:08}.csv"
            if not file.exists():
                yield file, part


def grade(workers: list, parts: Iterator[Part]) -> tuple[int, int]:
    """Two parts a worker at a time: one at work, one waiting for it."""
    graded = failed = 0
    free, at_work = workers * 2, {}
    while True:
        for worker, (file, paths) in zip(list(free), parts, strict=False):
            free.remove(worker)
            at_work[worker.grade.remote(file, paths)] = worker
        if not at_work:
            return graded, failed
        [done], _ = ray.wait(list(at_work))
        some, others = ray.get(done)
        graded, failed = graded + some, failed + others
        free.append(at_work.pop(done))
        print(f"{graded:,} graded, {failed:,} failed", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="a run folder, the same on every machine")
    parser.add_argument("list", type=Path, help="a path a line")
    parser.add_argument("folder", type=Path, help="where the tables go")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--cpus", type=int, default=1, help="of each worker")
    parser.add_argument("--gpus", type=float, default=0, help="of each worker; 0.5 is half a GPU")
    parser.add_argument("--part", type=int, default=2000, help="photographs a task")
    parser.add_argument("--address", help="of a Ray cluster; without it, this machine alone")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray tells its makers of each use
    ray.init(address=asked.address, log_to_driver=False, include_dashboard=False)
    kind = Worker.options(num_cpus=asked.cpus, num_gpus=asked.gpus)
    run = str(Path(asked.run).resolve())
    workers = [kind.remote(run, asked.cpus) for _ in range(asked.workers)]
    _, failed = grade(workers, cut(asked.list, asked.folder.resolve(), asked.part))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
