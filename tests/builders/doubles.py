"""Drawn eyes that stand in a data set more than once."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter


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
