"""What every test gets: no network, no colour, a cache of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

for forced in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "DR_DATA", "DR_RUNS", "DR_DEVICE"):
    os.environ.pop(forced, None)
os.environ["NO_COLOR"] = "1"
# OpenMP's threads spin while they wait: beside another busy process a training epoch took 9 times
# as long. Must stand before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and no fixture of a module or a package, reads or fills the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DR_CACHE", str(tmp_path_factory.getbasetemp() / "dr-cache"))
        # No test's files need outlive a power cut: writing them through is a second an epoch.
        patch.setattr(os, "fsync", lambda number: None)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs beside a contributor's checkout."""
    folder = Path(__file__).parents[2] / "shared"
    if not (folder / "data").is_dir():
        pytest.skip("../shared/data is not here: real photographs never enter the repository")
    return folder
