"""Hours of use in small: a grader, and the service, at work without a pause; descriptors, threads
and memory must stay as they are once everything has been used."""

import asyncio
import importlib.util
import io
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trials import Skipped, Trial, fault, mutants, need
from trials.fuzzed import fuzzed_run
from trials.mutants import Rng, change_bytes

SECONDS = 60
CLIENTS = 8
MAY_GROW = 24e6  # bytes between the middle and the last third; an allocator breathes


@dataclass
class Watch:
    """What this process holds, looked at twice a second at most."""

    seconds: float
    begun: float = field(default_factory=time.monotonic)
    seen: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Seconds since it began, descriptors, threads, bytes in memory."""

    def over(self) -> bool:
        """Looks, and tells whether the time is up."""
        since = time.monotonic() - self.begun
        if not self.seen or since > self.seen[-1][0] + 0.5:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            held = len(os.listdir("/proc/self/fd")), threading.active_count()
            self.seen.append((since, *held, pages * os.sysconf("SC_PAGE_SIZE")))
        return since > self.seconds

    def judge(self) -> None:
        """Lost where the last third holds more than the middle one."""
        middle = [row for row in self.seen if self.seconds / 3 < row[0] <= self.seconds * 2 / 3]
        last = [row for row in self.seen if self.seconds * 2 / 3 < row[0]]
        need(len(middle) > 3 and len(last) > 3, f"only {len(self.seen)} looks in {self.seconds} s")
        names = ("descriptors", "threads", "bytes of memory")
        for place, (name, spare) in enumerate(zip(names, (2, 2, MAY_GROW), strict=True), 1):
            before, after = (max(row[place] for row in part) for part in (middle, last))
            need(after <= before + spare, f"{name} grow: {before:,} then {after:,}")


def lay_out(rng: Rng, folder: Path) -> list[Path]:
    """Good photographs in every format, twice as many broken ones, and names of nothing."""
    paths = [folder / "nothing.png", folder]
    for name, data in mutants.make_photographs(0, side=160).items():
        for number, content in enumerate((data, change_bytes(data, rng), data[: len(data) // 2])):
            paths.append(folder / f"{number}-{name}")
            paths[-1].write_bytes(content)
    return paths


@fault("predict without a pause, good and broken files, 60 s", tries=1)
def predict(trial: Trial) -> int:
    """The photographs graded."""
    return soak_predict(trial.rng, trial.folder, fuzzed_run(trial.kept), SECONDS)


def soak_predict(rng: Rng, folder: Path, run: Path, seconds: float) -> int:
    """One stream that goes on for so long: a record each, in order."""
    if not Path("/proc/self/fd").is_dir():
        raise Skipped("this system has no /proc")
    from dr_cli import Grader
    from dr_cli.photographs.decoding import limit_pixels

    limit_pixels(4_000_000)
    paths, watch, asked = lay_out(rng, folder), Watch(seconds), 0

    def stream() -> Iterator[Path]:
        nonlocal asked
        while not watch.over():
            yield paths[asked % len(paths)]
            asked += 1

    grader = Grader.load(run, device="cpu")
    for told, record in enumerate(grader.predict(stream())):
        expected = str(paths[told % len(paths)])
        need(record["path"] == expected, f"record {told} is of {record['path']}, not {expected}")
    need(told + 1 == asked, f"{asked} photographs, {told + 1} records")
    watch.judge()
    return asked


@fault("service.py under load, eight clients, 60 s", tries=1)
def service(trial: Trial) -> int:
    """The uploads answered."""
    return soak_service(trial.rng, trial.folder, fuzzed_run(trial.kept), SECONDS)


def soak_service(rng: Rng, folder: Path, run: Path, seconds: float) -> int:
    """examples/service.py on the loopback interface: every upload is answered, with 200 or 422."""
    for module in ("fastapi", "uvicorn", "httpx", "python_multipart"):
        if importlib.util.find_spec(module) is None:
            raise Skipped(f"{module} is not installed")
    import uvicorn

    file = Path(__file__).parents[2] / "service.py"
    spec = importlib.util.spec_from_file_location("service", file)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    paths = [path for path in lay_out(rng, folder) if path.is_file()]
    app = made.make_app(str(run))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        watch = Watch(seconds)
        answers = asyncio.run(_ask(f"http://127.0.0.1:{port}/grade", paths, watch))
    finally:
        server.should_exit = True
        thread.join()
    others = {code: n for code, n in answers.items() if code not in (200, 422)}
    need(not others, f"answers of another kind: {others}")
    need(min(answers.get(200, 0), answers.get(422, 0)), f"answers of one kind: {answers}")
    watch.judge()
    return sum(answers.values())


async def _ask(address: str, paths: list[Path], watch: Watch) -> dict[int, int]:
    import httpx

    answers: dict[int, int] = {}

    async def client(number: int) -> None:
        async with httpx.AsyncClient(timeout=120) as desk:
            while not watch.over():
                number += CLIENTS
                path = paths[number % len(paths)]
                content: Any = io.BytesIO(path.read_bytes())
                answer = await desk.post(address, files={"photograph": (path.name, content)})
                answers[answer.status_code] = answers.get(answer.status_code, 0) + 1

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return answers
