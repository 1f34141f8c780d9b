"""What `Grader.predict` yields: plain records that a notebook shows, with their heatmaps.

A `Record` is a dict and nothing is kept beside its fields: JSON, pandas and == see a dict.
"""

import base64
import io
from typing import Any

from markupsafe import Markup

from dr_cli import markup, words
from dr_cli.photographs.decoding import UnreadableImage, decode

HEATMAP = 160  # pixels of the side that a notebook shows


class Record(dict[str, Any]):
    """One photograph's fields, see `telling.FIELDS`."""

    def _repr_html_(self) -> str:
        return show([self])


class Records(list[Record]):
    """Records that a notebook shows as one table, a row each.

    >>> graded = Records([Record(path="eye.jpg", error="no such file")])
    >>> "no such file" in graded._repr_html_()
    True
    """

    def _repr_html_(self) -> str:
        return show(self)


def show(records: list[Record]) -> str:
    """A table: photograph, grade, whether it is referable, quality, and heatmaps if there are.

    A name in bytes that are no UTF-8, which no notebook can hold, has ? for them.
    """
    heads = ["photograph", "grade", "grade 2 or more", "quality"]
    heads += ["heatmap"] if any(one.get("heatmap") for one in records) else []
    told = markup.table(heads, (_row(one, len(heads) > 4) for one in records))
    return told.encode(errors="replace").decode()


def _row(record: Record, heatmap: bool) -> list[markup.Text]:
    if record.get("error") is not None:
        return [record["path"], f"not graded: {record['error']}", *[""] * (2 + heatmap)]
    referable = "referable" if record["referable"] else "not referable"
    quality = [f"{record['verdict']} ({words.number(record['quality'], 2)})", record["reason"]]
    return [
        record["path"] or "(in memory)",
        _lines(f"{record['predicted']} {record['name']}", record["note"]),
        _lines(f"{words.number(record['referable_probability'])}: {referable}"),
        _lines(*quality),
        *([_thumbnail(record["heatmap"])] if heatmap else []),
    ]


def _lines(*texts: str) -> Markup:
    return Markup("<br>").join(text for text in texts if text)


def _thumbnail(path: str | None) -> markup.Text:
    """The picture itself, so that the notebook needs no file; in words why there is none."""
    if path is None:
        return ""
    try:
        picture = decode("", path, HEATMAP).picture
    except UnreadableImage as error:
        return f"{path}: {error.reason}"
    picture.thumbnail((HEATMAP, HEATMAP))
    kept = io.BytesIO()
    picture.save(kept, "JPEG", quality=80)
    source = "data:image/jpeg;base64," + base64.b64encode(kept.getvalue()).decode()
    return Markup("<img src='{}' width={} alt='heatmap'>").format(source, picture.width)
