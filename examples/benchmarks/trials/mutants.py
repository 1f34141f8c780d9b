"""What mutates: bytes, tables, records; and what is mutated: photographs, tables, workbooks."""

import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image, ImageDraw

Rng = np.random.Generator
EXTREME = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
NASTY = (
    "", "0", "1", "2", "4", "5", "-1", "0.5", "1e309", "nan", "inf", "None", "true", '"', "''",
    ",", ";", "\t", "|", "\n", "\r", "\r\n", "\0", " ", "\u00a0", "\ufeff", "\u202e", "\u2028",
    "\x1b[2J", "\x85", "é", "\U0001f441", "=1+1", "@SUM(A1)", "../", "../../etc/passwd", "/", "~",
    "a/b", "C:\\", "#", "[", "{", "<script>", "%s", "9" * 40, "x" * 5000,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 5, 1e308, float("nan"), float("inf"), 10**30, "", "x", "<b>", "../..",
    "y" * 5000, [], {}, [[]], [None] * 5, {"value": None}, {"a": {"b": []}}, "\ud800", "\0",
)  # fmt: skip


def change_bytes(data: bytes, rng: Rng) -> bytes:
    """One to four changes: flipped, overwritten, cut, repeated, moved or inserted bytes."""
    raw = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        begin = int(rng.integers(len(raw) + 1))
        if rng.random() < 0.5:  # headers decide most
            begin = min(begin, int(rng.integers(1, 200)))
        end = begin + int(rng.integers(1, 2 + min(4096, len(raw))))
        match rng.integers(7):
            case 0:
                raw[begin : begin + 1] = bytes([int(rng.integers(256))])
            case 1:
                width = int(rng.choice([1, 2, 4]))
                value = int(rng.choice(EXTREME)) & (256**width - 1)
                raw[begin : begin + width] = value.to_bytes(
                    width, str(rng.choice(["big", "little"]))
                )
            case 2:
                del raw[begin:]
            case 3:
                del raw[begin:end]
            case 4:
                raw[begin:begin] = raw[begin:end]
            case 5:
                raw[begin:begin] = rng.bytes(int(rng.integers(1, 64)))
            case _:
                piece = bytes(raw[begin:end])
                del raw[begin:end]
                place = int(rng.integers(len(raw) + 1))
                raw[place:place] = piece
    return bytes(raw)


def change_text(text: str, rng: Rng) -> str:
    """One to four changes: characters, cells and lines replaced, repeated, taken out, swapped."""
    for _ in range(rng.integers(1, 5)):
        lines = text.split("\n")
        row = int(rng.integers(len(lines)))
        place = int(rng.integers(len(lines[row]) + 1))
        nasty = str(rng.choice(NASTY))
        match rng.integers(7):
            case 0:
                lines[row] = lines[row][:place] + nasty + lines[row][place:]
            case 1:
                parts = re.split(r"([,;\t=: ])", lines[row])
                parts[int(rng.integers(len(parts)))] = nasty
                lines[row] = "".join(parts)
            case 2:
                del lines[row]
            case 3:
                lines.insert(row, lines[int(rng.integers(len(lines)))])
            case 4:
                lines[row] = lines[row][:place]
            case 5:
                other = int(rng.integers(len(lines)))
                lines[row], lines[other] = lines[other], lines[row]
            case _:
                lines[row] = lines[row].replace(",", str(rng.choice([";", "\t", ",,", " ", "\n"])))
        text = "\n".join(lines)
    return text


def encode(text: str, rng: Rng) -> bytes:
    """As some program writes it."""
    how = rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252", "latin-1"])
    raw = text.encode(str(how), "replace")
    return change_bytes(raw, rng) if rng.random() < 0.15 else raw


def change_record(value: Any, rng: Rng) -> Any:
    """The value with one node replaced, taken out, renamed or buried a thousand levels deep."""
    places = list(_list_places(value))
    where, key = places[int(rng.integers(len(places)))]
    match rng.integers(6):
        case 0:
            del where[key]
        case 1 if isinstance(where, dict):
            where[f"{key}_"] = where.pop(key)
        case 2:
            deep: Any = where[key]
            for _ in range(800):
                deep = [deep]
            where[key] = deep
        case _:
            where[key] = VALUES[int(rng.integers(len(VALUES)))]
    return value


def _list_places(value: Any) -> Iterator[tuple[Any, Any]]:
    within = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in list(within):
        yield value, key
        if isinstance(below, dict | list):
            yield from _list_places(below)


# --- what is mutated


def draw_disc(rng: Rng, side: int = 96) -> Image.Image:
    """What stands for an eye: a disc of reddish noise."""
    noise = rng.normal(0, 12, (side, side, 3)) + np.array([150, 80, 30])
    picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
    field = Image.new("L", picture.size)
    ImageDraw.Draw(field).ellipse((4, 4, side - 5, side - 5), fill=255)
    return Image.composite(picture, Image.new("RGB", picture.size), field)


def make_photograph(rng: Rng) -> bytes:
    """One of them as PNG."""
    kept = io.BytesIO()
    draw_disc(rng).save(kept, "PNG")
    return kept.getvalue()


@cache
def make_photographs(seed: int, side: int = 96) -> dict[str, bytes]:
    """A disc in every format that is read, by a name with its extension; made once, in 0.3 s."""
    from dr_cli.photographs.decoding import EXTENSIONS, FORMATS

    picture = draw_disc(np.random.default_rng(seed), side)
    found = {}
    for kind, (extension, *_) in FORMATS.items():
        assert extension in EXTENSIONS
        for mode in ("RGB", "L", "P", "I;16", "RGBA", "1", "CMYK"):
            exif = Image.Exif()
            exif[0x0112] = 6
            try:
                kept = io.BytesIO()
                shown = picture if mode != "I;16" else picture.convert("I")
                shown.convert(mode).save(kept, kind, **({"exif": exif} if mode == "RGB" else {}))
            except (OSError, ValueError, KeyError):  # not every format has every mode
                continue
            found[f"{mode.replace(';', '')}{extension}"] = kept.getvalue()
    return found


def make_tables(folder: Path) -> list[tuple[str, str]]:
    """Tables as people write them, and the few images that they name below `folder`."""
    names = [f"{k}_{side}" for k in range(1, 7) for side in ("left", "right")]
    blank = io.BytesIO()
    Image.new("RGB", (8, 8)).save(blank, "PNG")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / "images" / f"{name}.png").write_bytes(blank.getvalue())
    rows = [(name, k % 5) for k, name in enumerate(names)]
    wide = [(f"images/{n}.png", g, f"p{n[:-5]}", ("train", "test")[g % 2]) for n, g in rows]
    head = ("image", "grade", "patient", "split")
    return [
        ("labels.csv", "\n".join(["image,level", *(f"{n},{g}" for n, g in rows)]) + "\n"),
        ("labels.tsv", "\n".join("\t".join(map(str, row)) for row in [head, *wide]) + "\n"),
        ("labels.csv", "\n".join(";".join(map(str, row)) for row in [head, *wide]) + "\n"),
        ("labels.csv", "".join(f'"{n}.png","{g}"\n' for n, g in rows)),
        ("train.txt", "".join(f"{n}.png {g}\n" for n, g in rows)),
        ("labels.xlsx", "".join(f"{n},{g}\n" for n, g in [("image", "grade"), *rows])),
    ]


def make_workbook(rows: Sequence[Sequence[str]]) -> bytes:
    """An .xlsx file whose first sheet holds these texts."""

    def cell(text: str, row: int, column: int) -> str:
        legal = "".join(c for c in text if c in "\t\n" or c.isprintable())
        where = f"{chr(65 + column % 26)}{row}"
        return f'<c r="{where}" t="inlineStr"><is><t>{escape(legal)}</t></is></c>'

    body = "".join(
        f'<row r="{r}">{"".join(cell(text, r, c) for c, text in enumerate(row))}</row>'
        for r, row in enumerate(rows, 1)
    )
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as book:
        sheet = f'<worksheet xmlns="{space}"><sheetData>{body}</sheetData></worksheet>'
        book.writestr("xl/worksheets/sheet1.xml", sheet.encode("utf-8", "replace"))
    return kept.getvalue()
