"""Drawn eyes are told from photographs by their folder."""

from pathlib import Path

from dr_cli.sample import drawn_set
from dr_cli.sample.mark import is_drawn


def test_the_sample_set_is_marked_and_nothing_else_is(tmp_path: Path) -> None:
    folder = drawn_set.ensure(tmp_path / "cache", images=2, size=64, workers=1)
    picture = next((folder / "images").iterdir())
    for drawn in (folder, folder / "images", folder / "labels.csv", picture):
        assert is_drawn(drawn), drawn
    (tmp_path / "README.txt").write_text("My photographs of DRAWN eyes")
    alone = tmp_path / "photographs" / picture.name
    alone.parent.mkdir()
    alone.write_bytes(picture.read_bytes())
    for photograph in (tmp_path, alone.parent, alone, tmp_path / "nothing.jpg", "a\0.jpg"):
        assert not is_drawn(photograph), photograph
