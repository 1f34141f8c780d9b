"""Doubles are found whatever was done to the file; different eyes are not doubles."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

from dr_cli.errors import UsageError
from dr_cli.labels import reading
from dr_cli.photographs import cache, duplicates
from dr_cli.training import audit
from tests.builders.listener import Listener


def eye(seed: int, size: int = 320) -> Image.Image:
    """A field with a disc and vessels of its own; no two seeds have the same vessels."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (size + 40, size), (2, 1, 1))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((20, 0, size + 19, size - 1), fill=(168, 84, 15))
    for _ in range(24):
        place, turn = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0, 2 * np.pi)
        course = [tuple(place)]
        for _ in range(14):
            turn += rng.normal(0, 0.35)
            place = place + size / 22 * np.array([np.cos(turn), np.sin(turn)])
            course.append(tuple(place))
        pen.line(course, fill=(120, 48, 12), width=int(rng.integers(3, 7)), joint="curve")
    field = Image.new("L", picture.size)
    ImageDraw.Draw(field).ellipse((20, 0, size + 19, size - 1), fill=255)
    picture = picture.filter(ImageFilter.GaussianBlur(1))
    return Image.composite(picture, Image.new("RGB", picture.size, (2, 1, 1)), field)


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
    return [duplicates.perceptual_hash(eye(seed))[0] for seed in range(40)]


def apart(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.bitwise_count(a ^ b).sum())


def test_different_eyes_are_far_apart(hashes: list[np.ndarray]) -> None:
    pairs = [apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(pairs) > duplicates.NEAR * 1.5
    assert 450 < np.mean(pairs) < 550, "half of the bits, as of unrelated coins"


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_an_altered_copy_is_near(hashes: list[np.ndarray], change: str) -> None:
    for seed in range(8):
        copy, comparable = duplicates.perceptual_hash(CHANGES[change](eye(seed)))
        assert comparable
        assert apart(copy, hashes[seed]) <= duplicates.NEAR


def test_the_fellow_eye_is_no_double(hashes: list[np.ndarray]) -> None:
    mirrored = duplicates.perceptual_hash(ImageOps.mirror(eye(0)))[0]
    assert apart(mirrored, hashes[0]) > duplicates.NEAR


@pytest.mark.parametrize(
    "picture",
    [Image.new("RGB", (300, 300)), Image.new("RGB", (300, 300), (168, 84, 15)),
     eye(0).resize((40, 36))],
    ids=["black", "one colour", "tiny"],
)  # fmt: skip
def test_what_shows_too_little_is_not_compared(picture: Image.Image) -> None:
    assert not duplicates.perceptual_hash(picture)[1]


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
    found = {tuple(pair) for pair in duplicates.near_pairs(bits, which).tolist()}
    assert found == wanted
    assert n < 70 or wanted


def lay_out(root: Path) -> Path:
    """Six files of three eyes, two of them in two splits; one file is broken, one is missing."""
    photos = {
        "a.png": eye(1), "a_again.bmp": eye(1), "b.png": eye(2), "b_small.png":
        eye(2).resize((180, 160)), "c.png": eye(3),
    }  # fmt: skip
    root.mkdir(exist_ok=True)
    for name, picture in photos.items():
        picture.save(root / name)
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    (root / "labels.csv").write_text(
        "image,grade,split,patient\na,0,train,p1\na_again,3,test,p2\nb,2,train,p3\n"
        "b_small,2,test,p4\nc,1,train,p3\nbroken,4,train,p5\nmissing,4,test,p6\n",
        encoding="utf-8",
    )
    return root


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
    data = reading.read(tmp_path)
    found = audit.look(data)
    assert found.exact.tolist()[0] == found.exact.tolist()[2] != found.exact.tolist()[1]
    assert found.sizes.tolist() == [[128, 128]] * 3


# --- the audit ----------------------------------------------------------------------------------


def test_audit_of_a_small_set(tmp_path: Path) -> None:
    data = reading.read(lay_out(tmp_path))
    seen = audit.look(data)
    table = audit.settle(data, seen, val=0.5)
    record = audit.describe(data, table, seen)
    assert record["images_found"] == 6
    assert record["images_missing"] == 1
    assert record["left_out"] == {"unreadable": 1, "image missing": 1}
    assert [bad["path"] for bad in record["unreadable"]] == ["broken.jpg"]
    assert record["unreadable"][0]["reason"] == "the file is cut short (truncated)"
    assert record["leaks"]["duplicates_across_splits"] == 2
    doubles = record["duplicates"]
    assert doubles["exact_groups"] == 1
    assert doubles["near_groups"] == 1
    assert doubles["conflicting_groups"] == 1
    assert doubles["conflicts"] == [{"paths": ["a.png", "a_again.bmp"], "grades": [0, 3]}]
    assert record["splits"]["test"]["n"] == 2
    said = audit.problems(record)
    for words in ("1 of 7 images are missing", "cannot be read", "duplicate", "conflicting"):
        assert any(words in sentence for sentence in said), words


def test_doubles_stand_in_one_split_of_a_clean_one(tmp_path: Path) -> None:
    """p3's other eye and its double go where p3 goes."""
    data = reading.read(lay_out(tmp_path))
    seen = audit.look(data)
    with pytest.raises(UsageError, match="at least 2 patients"):
        audit.settle(data, seen, split_by="patient")  # two groups are too few for three splits
    eye(5).save(tmp_path / "missing.png")
    data = reading.read(tmp_path)
    seen = audit.look(data)
    table = audit.settle(data, seen, split_by="patient").set_index("path")["split"]
    assert table["a.png"] == table["a_again.bmp"]
    assert table["b.png"] == table["b_small.png"] == table["c.png"]
    assert set(table.dropna()) == {"train", "val", "test"}


def test_audit_of_labels_alone(shared: Path) -> None:
    data = reading.read(shared / "data" / "dlp")
    seen = audit.look(data)
    record = audit.describe(data, audit.settle(data, seen), seen)
    assert record["images_missing"] == record["rows"] == 35126
    assert record["leaks"]["fellow_eye_in_train"] == 5618
    assert record["splits"]["test"]["n"] == 7026
    assert record["baselines"]["fellow_eye"]["qwk"] == pytest.approx(0.723, abs=5e-4)
    assert record["sizes"] is None
    assert len(audit.problems(record)) == 2


def test_doubles_of_idrid(shared: Path, tmp_path: Path) -> None:
    """Six byte-identical pairs, three with conflicting grades, one across the splits; and
    IDRiD_013 and 397, one eye photographed twice and graded 3 and 2."""
    data = reading.read(shared / "data" / "idrid")
    seen = audit.look(data)
    record = audit.describe(data, audit.settle(data, seen), seen)
    assert record["leaks"]["duplicates_across_splits"] == 1
    doubles = record["duplicates"]
    assert (doubles["exact_groups"], doubles["near_groups"]) == (6, 1)
    assert doubles["conflicting_groups"] == 4
    names = [{Path(path).stem for path in group["paths"]} for group in doubles["conflicts"]]
    assert {"IDRiD_118", "IDRiD_064"} in names
    assert {"IDRiD_013", "IDRiD_397"} in names
