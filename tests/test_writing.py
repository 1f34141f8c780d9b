"""Files that are whole whatever happens while they are written: full disks and power cuts."""

import os
import resource
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dr_cli import writing
from dr_cli.errors import WriteError

sys.path.append(str(Path(__file__).parents[1] / "examples" / "benchmarks"))
from trials import powercut

STEPS = 6


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("seed", range(4))
def test_after_a_power_cut_each_file_is_whole_and_none_older_than_one_before_it(
    tmp_path, seed, monkeypatch
):
    """Weights, then what says that they are there; the power goes before the last are sure."""
    real = writing.sync

    def cut(path: Path) -> None:
        if path.is_dir():
            raise KeyboardInterrupt
        real(path)

    weights, record = tmp_path / "weights", tmp_path / "record"
    with powercut.watched(tmp_path / "disk"):
        for step in range(STEPS):
            writing.write_text(weights, f"weights {step}")
            writing.write_text(record, f"record {step}")
        monkeypatch.setattr(writing, "sync", cut)
        with pytest.raises(KeyboardInterrupt):
            writing.write_text(weights, f"weights {STEPS}")
    found = powercut.read(tmp_path / "disk", np.random.default_rng(seed))
    assert found.pop(weights) in {f"weights {k}".encode() for k in (STEPS - 1, STEPS)}
    assert found == {record: f"record {STEPS - 1}".encode()}


def test_what_need_not_last_is_not_written_through(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "sync", lambda path: pytest.fail("was"))
    with writing.whole(tmp_path / "heatmap.jpg", lasting=False) as aside:
        aside.write_bytes(b"x")
    assert (tmp_path / "heatmap.jpg").read_bytes() == b"x"


@contextmanager
def full():
    """A disk where a file of 64 KiB has no room; for pytest's own output, too, so no fixture."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(os.name == "nt", reason="POSIX limits")
@pytest.mark.parametrize(
    "write",
    [
        lambda path: torch.save({"weights": torch.zeros(2**16)}, path),
        lambda path: save_file({"weights": torch.zeros(2**16)}, path),
        lambda path: path.write_bytes(bytes(2**17)),
        lambda path: np.savez(path, weights=np.zeros(2**16)),
    ],
    ids=["torch", "safetensors", "bytes", "numpy"],
)
def test_on_a_full_disk_the_file_of_before_stays_and_the_reason_is_told(tmp_path, write):
    path = tmp_path / "weights.npz"
    path.write_text("of before")
    told = "weights.npz cannot be written: File too large"
    with pytest.raises(WriteError, match=told), full(), writing.whole(path) as aside:
        write(aside)
    assert path.read_text() == "of before"
    assert [file.name for file in tmp_path.iterdir()] == ["weights.npz"]


def test_a_folder_that_was_removed_is_not_made_anew(tmp_path):
    with pytest.raises(WriteError, match="No such file or directory"):
        writing.write_text(tmp_path / "gone" / "a.json", "")
    assert not (tmp_path / "gone").exists()
