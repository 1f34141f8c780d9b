import pytest

from tests.builders.photographs import picture


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Five files, one of each grade."""
    folder = tmp_path_factory.mktemp("photographs")
    for grade in range(5):
        picture(grade, size=96).save(folder / f"{grade}.png")
    return sorted(folder.iterdir())
