"""The built-in sample set: eyes DRAWN by procedure. No photograph, no patient, no clinical use.

It lets every command be tried, and a network be seen to learn, with nothing downloaded. The
anatomy, colours, lesion sizes, contrasts and counts follow what was measured on IDRiD (516
photographs, lesion masks of 81; Porwal et al., Data 2018, 3(3):25).

Every eye is a function of (seed, patient, eye), in separate streams for anatomy, lesions and
camera: the same eye drawn with two grades differs in its lesions and in nothing else.
"""

import csv
import os
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dr_cli import machine
from dr_cli.errors import DrError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import NUM_GRADES
from dr_cli.interrupts import SIGNALS
from dr_cli.sample.anatomy import add_vessels, aim, draw_person, paint_fundus
from dr_cli.sample.camera import add_drusen, add_reflexes, add_scars, photograph, show_field
from dr_cli.sample.canvas import Mask, Rng
from dr_cli.sample.lesions import add_lesions, keep_colours
from dr_cli.sample.mark import README
from dr_cli.writing import sync

Eye = Literal["left", "right"]

VERSION = 5  # of the drawing: another version is another folder in the cache
EYES: tuple[Eye, Eye] = ("left", "right")
ENROLMENT, PERSON, ANATOMY, LESION, CAMERA = range(5)  # streams of randomness

SHARES = (0.36, 0.16, 0.16, 0.16, 0.16)  # of the grades
TEST_SHARE = 0.25
AGREEMENT = 0.87  # of fellow eyes, as in EyePACS
DISAGREEMENTS = ((0, 1), (1, 2), (2, 3), (3, 4), (0, 1), (0, 2))
WORTH_PROCESSES = 32  # pictures; starting a process costs as much as drawing several


def _open_stream(seed: int, *address: int) -> Rng:
    return Rng(np.random.Philox(np.random.SeedSequence([seed, *address])))


@dataclass(frozen=True)
class Drawing:
    """A drawn photograph and what is known about it.

    pixels: uint8 [H, W, 3] RGB. masks: for each of LESIONS a bool [H, W]. disc, fovea: centres,
    (x, y) in pixels, perhaps outside the field. disc_diameter: pixels, horizontal, were the picture
    not squashed: `squash` of that is seen.
    jpeg_quality: what this patient's camera writes, 70 to 95.
    """

    pixels: NDArray[np.uint8]
    masks: dict[str, Mask]
    disc: tuple[float, float]
    fovea: tuple[float, float]
    disc_diameter: float
    squash: float
    jpeg_quality: int


def draw(seed: int, patient: int, eye: Eye, grade: int, size: int = 224) -> Drawing:
    """Draws one eye: the same arguments, the same picture, whatever was drawn before.

    seed, patient: integers from 0. grade: 0 to 4. size: side of the square picture, pixels,
    64 or more. Raises ValueError for other values.
    """
    if eye not in EYES or not 0 <= grade < NUM_GRADES or size < 64:
        raise ValueError(f"no such eye: {eye!r}, grade {grade!r}, {size!r} px")
    address = (patient, EYES.index(eye))
    person = draw_person(_open_stream(seed, PERSON, patient))
    anatomy = _open_stream(seed, ANATOMY, *address)
    view = aim(anatomy, 1 if eye == "left" else -1, size, person)
    picture = paint_fundus(anatomy, person, view)
    veins = add_vessels(anatomy, picture, view)
    add_drusen(anatomy, view, picture)
    add_reflexes(anatomy, view, picture, *view.grid()[:2])
    field = show_field(person, view)
    lesions = _open_stream(seed, LESION, *address)
    healthy = picture.copy()
    masks = add_lesions(lesions, grade, view, picture, veins)
    add_scars(lesions, view, grade, picture)
    keep_colours(picture, healthy, field > 0.5)
    pixels = photograph(_open_stream(seed, CAMERA, *address), person, view, picture, field)
    masks = {kind: mask & (field > 0.5) for kind, mask in masks.items()}
    disc, fovea = view.pixels(np.array([(0.0, 0.0), view.fovea])).tolist()
    return Drawing(
        pixels, masks, tuple(disc), tuple(fovea), view.dd, view.squash, person.jpeg_quality
    )


class Enrolled(NamedTuple):
    """One eye of the set. patient: from 1. split: "train" or "test"."""

    patient: int
    eye: Eye
    grade: int
    split: str

    @property
    def name(self) -> str:
        """The patient's, which nobody takes for a real one."""
        return f"drawn_{self.patient:04d}"

    @property
    def file(self) -> str:
        """The picture's, under images/."""
        return f"{self.name}_{self.eye}.jpg"


def enrol(images: int = 600, seed: int = 0) -> list[Enrolled]:
    """Who is drawn: two eyes a patient, SHARES of each grade, TEST_SHARE of the patients in test.

    Fellow eyes agree in AGREEMENT of the pairs and otherwise lie a grade or two apart. From 500
    images on, at least 20 of each grade are in test. Raises ValueError for fewer than one image.
    """
    if images < 1:
        raise ValueError(f"a sample set of {images} images")
    rng = _open_stream(seed, ENROLMENT)
    patients = (images + 1) // 2
    test = round(patients * TEST_SHARE)
    pairs = [(pair, "train") for pair in _pair(rng, patients - test)]
    pairs += [(pair, "test") for pair in _pair(rng, test)]
    rows = [
        Enrolled(patient, eye, grade, pairs[i][1])
        for patient, i in enumerate(rng.permutation(patients), start=1)
        for eye, grade in zip(EYES, pairs[i][0], strict=True)
    ]
    return rows[:images]


def _pair(rng: Rng, patients: int) -> list[list[int]]:
    """(left, right) grades of each patient. Exchanging two right eyes keeps the grades' shares."""
    exact = np.asarray(SHARES) * patients
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: patients - counts.sum()]] += 1
    pairs = [[grade, grade] for grade in range(NUM_GRADES) for _ in range(counts[grade])]
    disagreeing = patients * (1 - AGREEMENT)
    for low, high in islice(cycle(DISAGREEMENTS), round(disagreeing / 2)):
        one, other = pairs.index([low, low]), pairs.index([high, high])
        pairs[one][1], pairs[other][1] = high, low
    return [pairs[i] for i in rng.permutation(patients)]


def ensure(
    cache: Path,
    *,
    images: int = 600,
    size: int = 224,
    seed: int = 0,
    observer: Observer = NOTHING,
    workers: int | None = None,
) -> Path:
    """The sample set's folder below `cache`; drawn if it is not there yet, whole or not at all.

    It holds labels.csv (image,grade,patient,eye,split), images/*.jpg and README.txt. JPEG, at a
    quality that varies by camera, because that is how real sets come: a sixth of PNG's bytes,
    and the artefacts belong to the task. workers: processes, by default one a core.
    Raises DrError where the folder cannot be written.
    """
    folder = Path(cache) / "sample" / f"{VERSION}-{images}-{size}-{seed}"
    if folder.is_dir():
        return folder
    # Two processes may come here at once: each draws aside, the first to rename wins.
    aside = folder.with_name(f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}")
    rows = enrol(images, seed)
    _sweep(folder.parent)
    try:
        (aside / "images").mkdir(parents=True)
        write = partial(_write_picture, aside / "images", size, seed)
        _draw_all(write, rows, observer, workers or machine.cores())
        _write_labels(aside, rows)
        (aside / "README.txt").write_text(README, encoding="utf-8")
        for path in (*aside.rglob("*"), aside):  # a power cut would leave the names alone
            sync(path)
        aside.rename(folder)
        sync(folder.parent)
    except OSError as error:
        if not folder.is_dir():
            raise DrError(
                f"cannot write the sample set to {folder}: {error.strerror or error}; "
                "free some space there, or set DR_CACHE to another folder"
            ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _sweep(sets: Path) -> None:
    """Removes what was left by processes killed while they drew, which add a picture a second."""
    for left in sets.glob(".*-*"):
        with suppress(OSError):
            drawn = left / "images"
            if time.time() - (drawn if drawn.is_dir() else left).stat().st_mtime > 3600:
                shutil.rmtree(left)


def _write_labels(folder: Path, rows: list[Enrolled]) -> None:
    with (folder / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "grade", "patient", "eye", "split"])
        writer.writerows([row.file, row.grade, row.name, row.eye, row.split] for row in rows)


def _draw_all(
    write: Callable[[Enrolled], None], rows: list[Enrolled], observer: Observer, workers: int
) -> None:
    if workers > 1 and len(rows) >= WORTH_PROCESSES:
        # Spawned, not forked: the caller may hold threads (torch's, a progress bar's).
        try:
            with ProcessPoolExecutor(workers, get_context("spawn"), serve) as pool:
                _watch(pool.map(write, rows, chunksize=8), len(rows), observer)
            return
        except PermissionError:
            observer.note("drawing in one process: others cannot be started here")
        except BrokenProcessPool:
            observer.note(
                "a drawing process could not start or was killed, as the kernel does when memory "
                "runs out: drawing in one process"
            )
    _watch(map(write, rows), len(rows), observer)


def serve() -> None:
    """Makes this a process that ends with its parent, whose interrupts are the parent's to handle.

    Of a parent that is killed the pool's processes would wait for work for ever.
    """
    for number in set(SIGNALS) - {signal.SIGTERM}:  # by which a broken pool ends its processes
        signal.signal(number, signal.SIG_IGN)
    if (parent := parent_process()) is not None:
        Thread(target=_outlive, args=(parent,), daemon=True).start()


def _outlive(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _watch(written: Iterable[None], total: int, observer: Observer) -> None:
    for done, _ in enumerate(written, start=1):
        observer.progress("drawing the sample set", done, total)


def _write_picture(folder: Path, size: int, seed: int, row: Enrolled) -> None:
    drawing = draw(seed, row.patient, row.eye, row.grade, size)
    Image.fromarray(drawing.pixels).save(folder / row.file, quality=drawing.jpeg_quality)
