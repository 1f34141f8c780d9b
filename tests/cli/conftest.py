"""One trained run for all tests of the commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import photographs
from tests.builders.program import dr


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a data set and one trained run; the tests only read it."""
    folder = tmp_path_factory.mktemp("world")
    photographs.course(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DR_RUNS", str(folder / "runs"))
        done = dr("train", folder / "data", "--epochs", 2, "--size", 32, "--name", "first")
        assert done.exit_code == 0, done.output
        assert done.stdout.strip() == str(folder / "runs" / "first")
        yield folder
