"""No command opens a connection: all of them run where none can be opened. `world` was trained so,
too."""

import socket
import subprocess
import sys

import pytest

from tests.builders.photographs import picture
from tests.builders.program import dr
from tests.cli.conftest import SocketOpenedError, shut_sockets


def test_all_commands_run_where_no_connection_can_be_opened(world, tmp_path, monkeypatch):
    shut_sockets(monkeypatch)
    with pytest.raises(SocketOpenedError):
        socket.create_connection(("127.0.0.1", 9))
    data, run = world / "data", world / "runs" / "first"
    picture(1).save(tmp_path / "a.png")
    page = tmp_path / "page.html"
    for ask in (
        ("train", data, "--dry-run", "--size", 32, "--device", "cpu", "--quiet"),
        ("eval", run, "--bootstrap", 0, "--by", "eye"),
        ("eval", run, data, "--bootstrap", 0, "--device", "cpu"),
        ("predict", tmp_path / "a.png", "--run", run, "--explain", tmp_path / "heat"),
        ("report", run, "--out", page),
        ("export", run, "--format", "torch", "--out", tmp_path / "model.pt2"),
    ):
        done = dr(*ask)
        assert done.exit_code == 0, (ask, done.output, done.exception)
    assert "default-src 'none'" in page.read_text(encoding="utf-8")  # nor does who shows it


def test_a_process_of_its_own_asks_for_no_socket(tmp_path):
    """By Python's own audit, which no library goes around."""
    code = (
        "import sys\n"
        "def watch(event, what):\n"
        "    if event.startswith('socket.'): print('OPENED', event, what, file=sys.stderr)\n"
        "sys.addaudithook(watch)\n"
        "from dr_cli.cli import main\n"
        "sys.argv = ['dr', 'eval', 'nowhere']\n"
        "main()\n"
    )
    ask = [sys.executable, "-c", code]
    done = subprocess.run(ask, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2, done.stderr
    assert "OPENED" not in done.stderr
