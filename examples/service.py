"""A small HTTP service around a trained run: a photograph in, a record with its heatmap out.

    pip install 'dr-cli[service]'
    python examples/service.py runs/resnet18            # on http://127.0.0.1:8000
    curl -F photograph=@eye.jpg http://127.0.0.1:8000/grade

All uploads go through one queue into one grader, which takes what has come meanwhile as a batch.
For research and teaching: it makes no diagnosis, knows no users and keeps no photograph; whoever
lets others reach it puts a server with TLS and a login in front of it.
"""

import argparse
import asyncio
import base64
import io
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from fastapi import FastAPI, HTTPException, UploadFile

from dr_cli import Grader

MOST_BYTES = 25 * 2**20  # of an upload; a fundus photograph has one to ten
MOST_WAITING = 200  # uploads; who comes then is told to come again


class Desk:
    """One queue before one grader; answers come in the order of the uploads."""

    def __init__(self, grader: Grader) -> None:
        self.grader = grader
        self.uploads: SimpleQueue[io.BytesIO | None] = SimpleQueue()
        self.waiting: deque[tuple[str, Future[dict[str, Any]]]] = deque()
        self.numbers = count()
        self.stopped = False
        self.thread = Thread(target=self._work, name="desk")

    def grade(self, photograph: bytes, name: str) -> "Future[dict[str, Any]]":
        """Its record, once it is known. Called from one thread, so that the two stay in order."""
        upload, answer = io.BytesIO(photograph), Future[dict[str, Any]]()
        upload.name = f"{next(self.numbers)}-{name}"  # equal names would share a heatmap's file
        self.waiting.append((name, answer))
        if self.stopped:
            self._refuse()
        else:
            self.uploads.put(upload)
        return answer

    def _work(self) -> None:
        try:
            self._answer()
        finally:  # after a fault, as of a full disk, nobody should wait for what will not come
            self.stopped = True
            self._refuse()

    def _refuse(self) -> None:
        with suppress(IndexError):  # none waits any more
            while True:
                _, answer = self.waiting.popleft()
                if answer.set_running_or_notify_cancel():
                    answer.set_exception(HTTPException(500, "the grader has stopped: start anew"))

    def _answer(self) -> None:
        with TemporaryDirectory() as folder:
            for record in self.grader.predict(self._come(), explain=Path(folder)):
                if record["heatmap"]:
                    drawn = Path(record["heatmap"])
                    data = base64.b64encode(drawn.read_bytes()).decode()
                    record["heatmap"] = f"data:image/jpeg;base64,{data}"
                    drawn.unlink()
                name, answer = self.waiting.popleft()
                if answer.set_running_or_notify_cancel():  # else its client has gone away
                    answer.set_result(record | {"path": name})

    def _come(self) -> Iterator[io.BytesIO]:
        while (upload := self.uploads.get()) is not None:
            yield upload

    def close(self) -> None:
        """What has come is answered; then the grader's threads end."""
        self.uploads.put(None)
        self.thread.join()


def make_app(run: str) -> FastAPI:
    """The service for a run folder or its model.safetensors."""
    desk = Desk(Grader.load(run))

    @asynccontextmanager
    async def opened(_: FastAPI) -> AsyncIterator[None]:
        desk.thread.start()
        yield
        await asyncio.to_thread(desk.close)

    app = FastAPI(title="dr", description=__doc__, lifespan=opened)

    @app.post("/grade")
    async def grade(photograph: UploadFile) -> dict[str, Any]:
        """The fields of `dr predict --format json`; `heatmap` is a data URI."""
        data = await photograph.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise HTTPException(413, f"more than {MOST_BYTES >> 20} MiB")
        if len(desk.waiting) >= MOST_WAITING:
            raise HTTPException(503, "busy: come again", {"Retry-After": "5"})
        record = await asyncio.wrap_future(desk.grade(data, Path(photograph.filename or "").name))
        if record["error"]:
            raise HTTPException(422, record["error"])
        return record

    return app


if __name__ == "__main__":
    import uvicorn

    options = argparse.ArgumentParser(description="Grade uploads over HTTP.")
    options.add_argument("run")
    options.add_argument("--port", type=int, default=8000)
    chosen = options.parse_args()
    uvicorn.run(make_app(chosen.run), host="127.0.0.1", port=chosen.port)
