"""The drawn eyes: the same for the same seed, true to their grade, not to be graded by colour."""

import csv
import errno
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from dr_cli.errors import DrError
from dr_cli.sample import drawn_set
from dr_cli.sample.drawn_set import Drawing
from dr_cli.sample.lesions import LESIONS
from tests.builders.listener import Listener

DARK = (
    "microaneurysm",
    "haemorrhage",
    "venous_beading",
    "irma",
    "neovascularisation",
    "preretinal_haemorrhage",
)
BRIGHT = ("hard_exudate", "cotton_wool", "fibrous_band")
DRAWING = "drawing the sample set"
Rows = list[dict[str, str]]


def field(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return pixels.max(axis=2) > 25


# ------------------------------------------------------------------ one eye


def test_an_eye_depends_on_its_address_and_on_nothing_drawn_before() -> None:
    first = drawn_set.draw(3, 7, "left", 3)
    drawn_set.draw(3, 8, "right", 4)
    again = drawn_set.draw(3, 7, "left", 3)
    assert np.array_equal(first.pixels, again.pixels)
    assert all(np.array_equal(first.masks[kind], again.masks[kind]) for kind in LESIONS)
    for other in ((4, 7, "left"), (3, 8, "left"), (3, 7, "right")):
        assert not np.array_equal(first.pixels, drawn_set.draw(*other, 3).pixels)


def test_shapes_and_types() -> None:
    drawing = drawn_set.draw(0, 1, "right", 4, size=160)
    assert drawing.pixels.shape == (160, 160, 3)
    assert drawing.pixels.dtype == np.uint8
    assert tuple(drawing.masks) == LESIONS
    assert all(m.shape == (160, 160) and m.dtype == bool for m in drawing.masks.values())


@pytest.mark.parametrize(
    "wrong", [("middle", 0, 224), ("left", 5, 224), ("left", -1, 224), ("left", 0, 8)]
)
def test_an_eye_that_cannot_be_is_refused(wrong: tuple[str, int, int]) -> None:
    eye, grade, size = wrong
    with pytest.raises(ValueError, match="no such eye"):
        drawn_set.draw(0, 1, eye, grade, size)  # type: ignore[arg-type]


def test_the_disc_lies_on_the_nasal_side_and_the_fovea_below_and_temporal_to_it() -> None:
    for patient in range(12):
        for eye, temporal in (("left", 1), ("right", -1)):
            drawing = drawn_set.draw(0, patient, eye, 0)  # type: ignore[arg-type]
            away = (np.array(drawing.fovea) - drawing.disc) / drawing.disc_diameter
            away[0] /= drawing.squash
            assert 1.9 < away[0] * temporal < 3.1
            assert np.hypot(*away) == pytest.approx(2.5, abs=0.4)
            assert drawing.disc_diameter / 224 == pytest.approx(0.16, abs=0.06)


def test_the_disc_is_the_bright_place_and_the_fovea_a_dark_one() -> None:
    brighter, darker = [], []
    for patient in range(12):
        drawing = drawn_set.draw(0, patient, "left", 0)
        green = drawing.pixels[..., 1].astype(float)
        median = np.median(green[field(drawing.pixels)])
        for centre, ratios in ((drawing.disc, brighter), (drawing.fovea, darker)):
            x, y = (round(c) for c in centre)
            patch = green[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4]
            if patch.size == 49 and patch.min() > 5:
                ratios.append(np.median(patch) / median)
    assert len(brighter) >= 6
    assert len(darker) >= 10
    assert np.median(brighter) > 1.3
    assert np.median(darker) < 0.9


def test_colours_are_those_measured_on_photographs() -> None:
    middle = np.hypot(*(np.mgrid[:224, :224] - 111.5)) < 90
    medians = np.array(
        [
            np.median(pixels[field(pixels) & middle], axis=0)
            for pixels in (drawn_set.draw(0, patient, "left", 0).pixels for patient in range(40))
        ]
    )
    red, green, blue = np.median(medians, axis=0)
    assert red == pytest.approx(168, abs=10)
    assert green == pytest.approx(84, abs=8)
    assert 8 < blue < 35
    assert medians[:, 1].std() > 10  # cameras differ


# ------------------------------------------------------------------ lesions


@pytest.fixture(scope="module")
def drawn() -> dict[int, list[Drawing]]:
    """Sixteen eyes, each drawn with every grade."""
    return {g: [drawn_set.draw(5, p, "left", g) for p in range(1, 17)] for g in range(5)}


def test_each_grade_has_the_lesions_that_define_it(
    drawn: dict[int, list[Drawing]],
) -> None:
    def has(drawing: Drawing, *kinds: str) -> bool:
        return any(drawing.masks[kind].any() for kind in kinds)

    others = tuple(kind for kind in LESIONS if kind != "microaneurysm")
    proliferative = ("neovascularisation", "preretinal_haemorrhage", "fibrous_band")
    assert not any(has(d, *LESIONS) for d in drawn[0])
    assert all(has(d, "microaneurysm") and not has(d, *others) for d in drawn[1])
    assert all(has(d, "haemorrhage", "hard_exudate") for d in drawn[2])
    assert not any(has(d, "irma", "venous_beading") for d in drawn[2])
    assert all(has(d, "haemorrhage") and has(d, "hard_exudate") for d in drawn[3])
    for grade in (2, 3):
        assert not any(has(d, *proliferative) for d in drawn[grade])
    assert all(has(d, *proliferative) for d in drawn[4])


def test_the_same_eye_with_another_grade_differs_at_its_lesions(
    drawn: dict[int, list[Drawing]],
) -> None:
    """Elsewhere by no more than the tone curve that keeps colours from telling the grade."""
    for grade in (1, 2, 3, 4):
        for healthy, ill in zip(drawn[0], drawn[grade], strict=True):
            change = np.abs(ill.pixels.astype(int) - healthy.pixels).mean(axis=2)
            lesions = np.any(list(ill.masks.values()), axis=0)
            elsewhere = field(healthy.pixels) & ~_grown(lesions, 9)
            assert change[elsewhere].mean() < 3
            assert change[lesions].mean() > 2 * change[elsewhere].mean()


def _grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(pixels))) > 0


@pytest.mark.parametrize("kind", LESIONS)
def test_masks_agree_with_the_picture(kind: str, drawn: dict[int, list[Drawing]]) -> None:
    """The lesion's green against the same pixels of the same eye without it."""
    ratios = []
    for grade in (1, 2, 3, 4):
        for healthy, ill in zip(drawn[0], drawn[grade], strict=True):
            others = [mask for name, mask in ill.masks.items() if name != kind]
            alone = ill.masks[kind] & ~_grown(np.any(others, axis=0), 5) & field(healthy.pixels)
            if alone.any():
                before = healthy.pixels[alone, 1].astype(float).mean()
                ratios.append(ill.pixels[alone, 1].mean() / before)
    assert ratios, f"no {kind} drawn"
    if kind in DARK:
        assert 0.4 < np.median(ratios) < 0.97
    else:
        assert kind in BRIGHT
        assert 1.03 < np.median(ratios) < 1.6


def test_severe_eyes_have_more_lesions(drawn: dict[int, list[Drawing]]) -> None:
    for kind, first in (("microaneurysm", 0), ("haemorrhage", 1), ("hard_exudate", 1)):
        area = [np.median([d.masks[kind].mean() for d in drawn[g]]) for g in range(5)]
        assert area[first] == 0
        assert area[first] < area[first + 1] < area[3]
        assert area[2] < 0.8 * area[4]


def test_lesions_lie_in_the_field_and_off_the_disc(
    drawn: dict[int, list[Drawing]],
) -> None:
    for drawing in drawn[3]:
        y, x = np.nonzero(drawing.masks["microaneurysm"])
        assert field(drawing.pixels)[y, x].mean() > 0.99
        across, down = x + 0.5 - drawing.disc[0], y + 0.5 - drawing.disc[1]
        assert np.hypot(across / drawing.squash, down).min() > 0.5 * drawing.disc_diameter


def test_a_large_picture_has_lesions_of_the_measured_size() -> None:
    """At 1024 px a median microaneurysm is .033 DD: 0.033 * 0.153 * 1024 = 5.2 px across."""
    drawing = drawn_set.draw(0, 1, "left", 1, size=1024)
    area = drawing.masks["microaneurysm"].sum()
    assert 1 <= area / (np.pi / 4 * 5.2**2) < 20


# ------------------------------------------------------------------ the set


def test_the_set_is_balanced_as_promised() -> None:
    rows = drawn_set.enrol()
    assert len(rows) == 600
    assert rows == drawn_set.enrol()
    assert rows != drawn_set.enrol(seed=1)
    grades = Counter(row.grade for row in rows)
    assert grades.most_common(1)[0][0] == 0
    test = Counter(row.grade for row in rows if row.split == "test")
    assert min(test[g] for g in range(5)) >= 20
    assert {row.split for row in rows} == {"train", "test"}
    by_patient: dict[int, set[str]] = {}
    for row in rows:
        by_patient.setdefault(row.patient, set()).add(row.split)
    assert all(len(splits) == 1 for splits in by_patient.values())
    assert len(by_patient) == 300


def test_fellow_eyes_agree_as_often_as_in_real_sets() -> None:
    for seed in range(3):
        grades: dict[int, list[int]] = {}
        for row in drawn_set.enrol(seed=seed):
            grades.setdefault(row.patient, []).append(row.grade)
        gaps = [abs(left - right) for left, right in grades.values()]
        assert np.mean([gap == 0 for gap in gaps]) == pytest.approx(0.87, abs=0.01)
        assert max(gaps) <= 2


@pytest.mark.parametrize("images", [1, 2, 3, 7, 10, 41, 500])
def test_any_number_of_pictures_can_be_enrolled(images: int) -> None:
    rows = drawn_set.enrol(images)
    assert len(rows) == images
    assert len({(row.patient, row.eye) for row in rows}) == images
    if images >= 500:
        test = Counter(row.grade for row in rows if row.split == "test")
        assert min(test[g] for g in range(5)) >= 20


def test_patient_numbers_tell_nothing_about_grade_or_split() -> None:
    rows = drawn_set.enrol()
    patients = np.array([row.patient for row in rows], float)
    for values in ([row.grade for row in rows], [row.split == "test" for row in rows]):
        assert abs(np.corrcoef(patients, np.array(values, float))[0, 1]) < 0.12


def test_no_pictures_is_refused() -> None:
    with pytest.raises(ValueError, match="0 images"):
        drawn_set.enrol(0)


def test_the_folder_has_what_its_table_names(tmp_path: Path) -> None:
    seen = Listener()
    folder = drawn_set.ensure(tmp_path, images=8, size=96, observer=seen, workers=1)
    assert seen.steps == [(DRAWING, n, 8) for n in range(1, 9)]
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "grade", "patient", "eye", "split"]
    assert {row["image"] for row in rows} == {p.name for p in (folder / "images").iterdir()}
    assert all(row["image"].startswith("drawn_") for row in rows)
    with Image.open(folder / "images" / rows[0]["image"]) as picture:
        assert (picture.format, picture.size, picture.mode) == ("JPEG", (96, 96), "RGB")
    text = (folder / "README.txt").read_text(encoding="utf-8")
    assert "not photographs" in text
    assert "never be used for a clinical purpose" in text


def test_a_second_call_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = drawn_set.ensure(tmp_path, images=2, size=64, workers=1)
    monkeypatch.setattr(drawn_set, "draw", lambda *_: pytest.fail("drawn again"))
    assert drawn_set.ensure(tmp_path, images=2, size=64, workers=1) == folder


def test_other_arguments_are_another_folder(tmp_path: Path) -> None:
    folders = {
        drawn_set.ensure(tmp_path, images=n, size=s, seed=seed, workers=1)
        for n, s, seed in ((1, 64, 0), (2, 64, 0), (1, 80, 0), (1, 64, 1))
    }
    assert len(folders) == 4


def test_an_interrupted_set_is_absent(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drawn_set.ensure(tmp_path, images=2, size=64, workers=1, observer=Listener(progress=stop))
    assert list((tmp_path / "sample").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "sample").write_text("in the way", encoding="utf-8")
    with pytest.raises(DrError, match=r"cannot write the sample set to .*DR_CACHE"):
        drawn_set.ensure(tmp_path, images=1, size=64, workers=1)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DrError, match="No space left"):
        drawn_set.ensure(tmp_path, images=1, size=64, workers=1)
    assert list((tmp_path / "sample").iterdir()) == []


def test_two_processes_at_once_both_get_the_whole_set(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        folders = list(pool.map(_ensure_small, [tmp_path] * 2))
    assert folders[0] == folders[1]
    assert len(list((folders[0] / "images").iterdir())) == 10
    assert list((tmp_path / "sample").iterdir()) == [folders[0]]


def _ensure_small(cache: Path) -> Path:
    return drawn_set.ensure(cache, images=10, size=64, workers=1)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL is POSIX's")
def test_a_killed_one_leaves_no_processes_and_its_pictures_go(tmp_path: Path) -> None:
    """The pipe's other end is theirs, too: it is closed when the last of them has ended."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom dr_cli.sample import drawn_set\n"
        "if __name__ == '__main__':\n"
        "    drawn_set.ensure(Path(sys.argv[1]), images=2000, size=64, workers=2)\n"
    )
    (tmp_path / "draw.py").write_text(code)
    program = [sys.executable, str(tmp_path / "draw.py"), str(tmp_path)]
    process = subprocess.Popen(program, stdout=subprocess.PIPE)
    while not list(tmp_path.glob("sample/.*/images/*.jpg")):
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    (left,) = tmp_path.glob("sample/.*")
    os.utime(left / "images", (0, 0))
    drawn_set.ensure(tmp_path, images=2, size=64)
    assert not left.exists()


def test_several_processes_draw_the_same_files_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawn_set, "WORTH_PROCESSES", 4)
    alone = drawn_set.ensure(tmp_path / "alone", images=12, size=64, workers=1)
    # The processes that are started import a `draw` of their own.
    monkeypatch.setattr(drawn_set, "draw", lambda *_: pytest.fail("drawn in this process"))
    seen = Listener()
    together = drawn_set.ensure(tmp_path / "together", images=12, size=64, workers=2, observer=seen)
    assert seen.steps == [(DRAWING, n, 12) for n in range(1, 13)]
    for file in sorted((alone / "images").iterdir()):
        assert file.read_bytes() == (together / "images" / file.name).read_bytes()


def test_without_processes_it_draws_in_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError("no processes here")

    monkeypatch.setattr(drawn_set, "WORTH_PROCESSES", 1)
    monkeypatch.setattr(drawn_set, "ProcessPoolExecutor", refused)
    seen = Listener()
    folder = drawn_set.ensure(tmp_path, images=2, size=64, workers=2, observer=seen)
    assert seen.notes == ["drawing in one process: others cannot be started here"]
    assert len(list((folder / "images").iterdir())) == 2


# ------------------------------------------------------------------ no short cut


@pytest.fixture(scope="module")
def whole_set(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, list[NDArray[np.uint8]]]:
    """The default set, at 112 px: colour statistics do not need more."""
    folder = drawn_set.ensure(tmp_path_factory.mktemp("whole"), size=112)
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, [np.asarray(Image.open(folder / "images" / row["image"])) for row in rows]


@pytest.mark.parametrize("features", ["statistics", "histogram"])
def test_colour_alone_cannot_grade(
    features: str, whole_set: tuple[Rows, list[NDArray[np.uint8]]]
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, pictures = whole_set
    describe = colour_statistics if features == "statistics" else colour_histogram
    x = np.stack([describe(pixels) for pixels in pictures])
    y = np.array([int(row["grade"]) for row in rows])
    test = np.array([row["split"] == "test" for row in rows])
    majority = np.mean(y[test] == 0)
    for strength in (0.1, 1.0, 100.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
        assert model.fit(x[~test], y[~test]).score(x[test], y[test]) <= majority + 0.05


def colour_statistics(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean, standard deviation and percentiles of each channel in the field, [27]."""
    inside = pixels[field(pixels)].astype(float)
    percentiles = np.percentile(inside, [1, 5, 25, 50, 75, 95, 99], axis=0).ravel()
    return np.concatenate([inside.mean(axis=0), inside.std(axis=0), percentiles])


def colour_histogram(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Eight bins of each channel in the field, [24]."""
    inside = pixels[field(pixels)]
    bins = [np.histogram(inside[:, c], 8, (0, 256))[0] for c in range(3)]
    return np.concatenate(bins) / len(inside)
