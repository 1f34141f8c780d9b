"""examples/service.py under fifty clients at once, and examples/watch_folder.py."""

import asyncio
import base64
import importlib.util
import io
import json
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest
import torch
from PIL import Image

from dr_cli import Grader, runs
from dr_cli.grades import Calibration
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.crop import Preprocessing
from tests.builders.photographs import picture

EXAMPLES = Path(__file__).parents[1] / "examples"
for needed in ("fastapi", "python_multipart"):
    pytest.importorskip(needed, reason="the extra `service` is not installed")
httpx, uvicorn = pytest.importorskip("httpx"), pytest.importorskip("uvicorn")


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    network = build_resnet("resnet18").eval()
    torch.nn.init.normal_(network.fc.weight)
    record = runs.ModelRecord("resnet18", Preprocessing(32).to_dict(), Calibration())
    runs.Run(folder).save_model(network.state_dict(), record)
    return folder


@pytest.fixture(scope="module")
def photographs():
    """Ten pictures as PNG files hold them, by name."""
    found = {}
    for k in range(10):
        picture(k % 5, seed=k, size=96).save(held := io.BytesIO(), "PNG")
        found[f"{k}.png"] = held.getvalue()
    return found


@pytest.fixture(scope="module")
def address(run):
    service = load("service")
    server = uvicorn.Server(uvicorn.Config(service.make_app(str(run)), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/grade"
    server.should_exit = True
    thread.join()


def post_all(address, uploads):
    async def send():
        async with httpx.AsyncClient(timeout=120) as client:
            sent = (client.post(address, files={"photograph": (n, d)}) for n, d in uploads)
            return await asyncio.gather(*sent)

    return asyncio.run(send())


def test_fifty_at_once_get_each_its_own_record_and_heatmap(address, run, photographs):
    uploads = list(photographs.items()) * 5
    answers = post_all(address, uploads)
    assert [answer.status_code for answer in answers] == [200] * 50
    expected = Grader.load(run).predict([io.BytesIO(data) for data in photographs.values()])
    expected = dict(zip(photographs, expected, strict=True))
    assert len({json.dumps(record["probabilities"]) for record in expected.values()}) > 5
    for (name, _), answer in zip(uploads, answers, strict=True):
        record = answer.json()
        assert record["path"] == name
        assert record["probabilities"] == pytest.approx(expected[name]["probabilities"], abs=1e-2)
        kind, _, data = record["heatmap"].partition(",")
        assert kind == "data:image/jpeg;base64"
        Image.open(io.BytesIO(base64.b64decode(data))).verify()


def test_what_is_no_photograph_is_refused_and_the_others_go_on(address, photographs):
    service = load("service")
    uploads = [("a.txt", b"text"), ("1.png", photographs["1.png"]), ("b.png", b"")]
    uploads.append(("large.png", bytes(service.MOST_BYTES + 1)))
    answers = post_all(address, uploads)
    assert [answer.status_code for answer in answers] == [422, 200, 422, 413]
    assert "not an image" in answers[0].json()["detail"]


def test_a_full_desk_says_come_again(run, photographs, monkeypatch):
    service = load("service")
    monkeypatch.setattr(service, "MOST_WAITING", 0)
    app = httpx.ASGITransport(service.make_app(str(run)))

    async def send():
        async with httpx.AsyncClient(transport=app, base_url="http://desk") as client:
            return await client.post("/grade", files={"photograph": photographs["1.png"]})

    answer = asyncio.run(send())
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


class Leaving(Future):
    """Its client goes away just when somebody has looked whether it has."""

    def cancelled(self):
        gone = super().cancelled()
        self.cancel()
        return gone


def test_who_goes_away_at_the_last_moment_stops_nobody(run, photographs, monkeypatch):
    service = load("service")
    desk = service.Desk(Grader.load(run))
    desk.thread.start()
    monkeypatch.setattr(service, "Future", Leaving)
    desk.grade(photographs["1.png"], "1.png")
    monkeypatch.undo()
    try:
        assert desk.grade(photographs["2.png"], "2.png").result(60)["path"] == "2.png"
    finally:
        desk.close()


def test_a_fault_of_the_grader_leaves_nobody_waiting(run, photographs, monkeypatch):
    """As of a disk that is full, where heatmaps go."""
    service = load("service")
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    class Full:
        def predict(self, uploads, **how):
            for _ in uploads:
                raise OSError("No space left on device")

    monkeypatch.setattr(service.Grader, "load", lambda run: Full())
    app = service.make_app(str(run))

    async def send():
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://desk") as client,
        ):
            files = {"photograph": photographs["1.png"]}
            return [
                (await asyncio.wait_for(client.post("/grade", files=files), 20)).status_code
                for _ in range(2)
            ]

    assert asyncio.run(send()) == [500, 500]


def test_a_watched_folder_is_graded_as_files_arrive(run, photographs, tmp_path, monkeypatch):
    watch = load("watch_folder")
    monkeypatch.setattr(watch, "EVERY", 0.0)
    inbox, grades = tmp_path / "inbox", tmp_path / "grades.jsonl"
    inbox.mkdir()
    for name, data in photographs.items():
        (inbox / name).write_bytes(data)
    (inbox / ".half").write_bytes(b"")
    known = {str(inbox / "0.png")}
    assert list(watch.arrivals(inbox, set(), looks=1)) == []  # they may still grow
    assert next(watch.arrivals(inbox, known, looks=2)).name == "1.png"
    watch.main(str(run), str(inbox), str(grades), looks=2)
    watch.main(str(run), str(inbox), str(grades), looks=2)
    listed = [json.loads(line)["path"] for line in grades.read_text().splitlines()]
    assert [Path(path).name for path in listed] == sorted(photographs)


def test_a_file_that_is_moved_away_ends_no_watch(tmp_path, monkeypatch):
    """Between the look that found it and its turn, and between two questions about it."""
    watch = load("watch_folder")
    monkeypatch.setattr(watch, "EVERY", 0.0)
    for name in "abc":
        (tmp_path / name).write_bytes(b"photograph")
    seen = watch.arrivals(tmp_path, set(), looks=3)
    assert next(seen).name == "a"
    ask = Path.is_file

    def asked(path, **how):
        found = ask(path, **how)
        if path.name == "b":
            path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "is_file", asked)
    assert [path.name for path in seen] == ["c"]


def test_a_half_written_line_of_a_watch_is_cut_off(run, photographs, tmp_path, monkeypatch):
    """As a full disk or a power cut leaves it: the next record stood behind it on its line, and
    from then on the list could not be read."""
    watch = load("watch_folder")
    monkeypatch.setattr(watch, "EVERY", 0.0)
    inbox, grades = tmp_path / "inbox", tmp_path / "grades.jsonl"
    inbox.mkdir()
    for name in ("1.png", "2.png", "\N{EYE}.png"):
        (inbox / name).write_bytes(photographs["1.png"])
    watch.main(str(run), str(inbox), str(grades), looks=2)
    whole = grades.read_bytes()
    for cut in (5, len(whole) - 5):
        grades.write_bytes(whole[:cut])
        watch.main(str(run), str(inbox), str(grades), looks=2)
        paths = [json.loads(line)["path"] for line in grades.read_text().splitlines()]
        assert paths == [json.loads(line)["path"] for line in whole.splitlines()]
