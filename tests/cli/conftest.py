"""One trained run for all tests of the commands."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import photographs
from tests.builders.program import dr


class SocketOpenedError(AssertionError):
    """Something wanted to go out."""


def shut_sockets(patch: pytest.MonkeyPatch) -> None:
    """This process, and those that it forks, can look up no name and open no socket but those
    that processes of one machine talk through."""

    def refuse(*_: object, **__: object) -> None:
        raise SocketOpenedError

    class Within(socket.socket):
        def __init__(self, family: int = -1, *more: object, **further: object) -> None:
            if family != socket.AF_UNIX:
                refuse()
            super().__init__(family, *more, **further)

    patch.setattr(socket, "socket", Within)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        patch.setattr(socket, name, refuse)


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a data set and one trained run; the tests only read it."""
    folder = tmp_path_factory.mktemp("world")
    photographs.course(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DR_RUNS", str(folder / "runs"))
        with pytest.MonkeyPatch.context() as shut:
            shut_sockets(shut)
            done = dr("train", folder / "data", "--epochs", 2, "--size", 32, "--name", "first")
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == str(folder / "runs" / "first")
        yield folder
