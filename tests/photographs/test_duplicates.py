"""Doubles are found whatever was done to the file; different eyes are not doubles."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from dr_cli.photographs import cache, duplicates
from tests.builders.doubles import eye, lay_out
from tests.builders.listener import Listener


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return Image.open(io.BytesIO(out.getvalue())).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "jpeg": lambda picture: jpeg(picture, 60),
    "half the size": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "squashed to a square": lambda picture: picture.resize((224, 224)),
    "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
    "more contrast": lambda picture: ImageEnhance.Contrast(picture).enhance(1.3),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.5)),
    "turned by 2 degrees": lambda picture: picture.rotate(2, Image.Resampling.BILINEAR),
    "on a wider border": lambda picture: ImageOps.expand(picture, 60, (2, 1, 1)),
    "cut at the border": lambda picture: ImageOps.crop(picture, (24, 4, 24, 4)),
}  # fmt: skip


@pytest.fixture(scope="module")
def hashes() -> list[np.ndarray]:
    return [duplicates.hash_photograph(eye(seed))[0] for seed in range(40)]


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.bitwise_count(a ^ b).sum())


def test_different_eyes_are_far_apart(hashes: list[np.ndarray]) -> None:
    pairs = [apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(pairs) > duplicates.NEAR * 1.5
    assert 450 < np.mean(pairs) < 550, "half of the bits, as of unrelated coins"


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_altered_copy_is_near(hashes: list[np.ndarray], change: str) -> None:
    for seed in range(8):
        copy, comparable = duplicates.hash_photograph(CHANGES[change](eye(seed)))
        assert comparable
        assert apart(copy, hashes[seed]) <= duplicates.NEAR


def test_the_fellow_eye_is_no_double(hashes: list[np.ndarray]) -> None:
    mirrored = duplicates.hash_photograph(ImageOps.mirror(eye(0)))[0]
    assert apart(mirrored, hashes[0]) > duplicates.NEAR


@pytest.mark.parametrize(
    "picture",
    [Image.new("RGB", (300, 300)), Image.new("RGB", (300, 300), (168, 84, 15)),
     eye(0).resize((40, 36))],
    ids=["black", "one colour", "tiny"],
)  # fmt: skip
def test_what_shows_too_little_is_not_compared(picture: Image.Image) -> None:
    assert not duplicates.hash_photograph(picture)[1]


@pytest.mark.parametrize("n", [0, 1, 2, 70, 300])
def test_near_pairs_are_all_pairs(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against every pair one by one, over the borders of blocks."""
    monkeypatch.setattr(duplicates, "_COLUMNS", 128)
    rng = np.random.default_rng(n)
    bits = rng.integers(0, 2**64, (n, 16), dtype=np.uint64)
    for i in range(1, n, 3):  # copies with a few bits changed, some just over the limit
        flips = rng.choice(1024, int(rng.integers(0, 260)), replace=False)
        changed = np.unpackbits(bits[i - 1].view(np.uint8))
        changed[flips] ^= 1
        bits[i] = np.packbits(changed).view(np.uint64)
    which = np.flatnonzero(np.arange(n) % 10 != 7)
    wanted = {(i, j) for i in which for j in which if i < j and apart(bits[i], bits[j]) <= 180}
    found = {tuple(pair) for pair in duplicates.find_near(bits, which).tolist()}
    assert found == wanted
    assert n < 70 or wanted


def test_exact_and_near_doubles_of_files(tmp_path: Path) -> None:
    lay_out(tmp_path)
    paths = ["a.png", "a_again.bmp", "b.png", "b_small.png", "c.png", "broken.jpg"]
    found = duplicates.find(tmp_path, paths, workers=2)
    exact, near = found.exact.tolist(), found.near.tolist()
    assert exact[0] == exact[1], "another format, the same pixels"
    assert len(set(exact)) == 5
    assert near[0] == near[1] != near[2] == near[3]
    assert len(set(near)) == 4
    assert found.sizes.tolist()[3] == [180, 160]
    assert list(found.failed) == ["broken.jpg"]
    assert duplicates.count(found.near) == 2
    grades = np.array([0, 3, 2, 2, 1, 4])
    assert [rows.tolist() for rows in duplicates.conflicts(found.near, grades)] == [[0, 1]]


def test_a_second_look_decodes_nothing_but_what_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DR_CACHE", str(tmp_path / "cache"))
    lay_out(tmp_path / "set")
    paths = ["a.png", "b.png", "c.png", "broken.jpg"]
    first = duplicates.find(tmp_path / "set", paths)
    watcher = Listener()
    eye(9).save(tmp_path / "set" / "c.png")
    again = duplicates.find(tmp_path / "set", paths, observer=watcher)
    assert [step for step in watcher.steps if step[0] == "decoding"] == [
        ("decoding", 1, 2), ("decoding", 2, 2)
    ]  # fmt: skip
    assert again.failed == first.failed
    assert np.array_equal(again.near, first.near)
    kept = next((cache.folder() / "hashes").iterdir())
    kept.write_bytes(kept.read_bytes()[:100])
    assert np.array_equal(duplicates.find(tmp_path / "set", paths).near, first.near)


def test_many_photographs_are_compared_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(duplicates, "_MANY", 3)
    lay_out(tmp_path / "set")
    paths = ["a.png", "b.png", "b_small.png", "c.png"]

    def compared(paths: list[str]) -> tuple[bool, list[int]]:
        found = duplicates.find(tmp_path / "set", paths, observer=(watcher := Listener()))
        return "comparing photographs" in {step[0] for step in watcher.steps}, found.near.tolist()

    _, near = first = compared(paths)
    assert first[0]
    assert near[1] == near[2]
    assert compared(paths) == (False, near)
    assert compared(paths[:3]) == (True, near[:3])  # others than before
    for kept in (cache.folder() / "hashes").glob("near-*"):
        kept.write_bytes(kept.read_bytes()[:100])
    assert compared(paths) == (True, near)
    eye(9).save(tmp_path / "set" / "b_small.png")
    again, near = compared(paths)
    assert again
    assert near[1] != near[2]


def test_a_photograph_turned_by_exif_is_an_exact_double(tmp_path: Path) -> None:
    """Sizes are upright: else the same pixels, stored turned, would count as near alone."""
    upright = eye(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "a.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    found = duplicates.find(tmp_path, ["a.png", "b.png"])
    assert found.sizes.tolist() == [[360, 320], [360, 320]]
    assert found.exact.tolist() == [0, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12).flatmap(lambda n: st.tuples(
    st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=14)
)))  # fmt: skip
def test_what_pairs_connect_has_one_number(case: tuple[int, list[tuple[int, int]]]) -> None:
    """Against groups merged pair by pair."""
    n, pairs = case
    groups = [{k} for k in range(n)]
    for a, b in pairs:
        both = groups[a] | groups[b]
        for k in both:
            groups[k] = both
    found = duplicates.connect(n, np.array(pairs, np.int64).reshape(-1, 2))
    assert all((found[a] == found[b]) == (b in groups[a]) for a in range(n) for b in range(n))


def test_photographs_in_an_npz(tmp_path: Path) -> None:
    stack = np.stack([np.asarray(eye(seed).resize((128, 128))) for seed in (1, 2, 1)])
    np.savez(tmp_path / "set.npz", train_images=stack, train_labels=[0, 1, 2])
    found = duplicates.find(tmp_path, [f"set.npz#train/{k}" for k in range(3)])
    assert found.exact.tolist()[0] == found.exact.tolist()[2] != found.exact.tolist()[1]
    assert found.sizes.tolist() == [[128, 128]] * 3
