"""Files of labels and empty images, laid out; and the rows that reading them gives."""

import io
import zipfile
from pathlib import Path

from dr_cli.labels.reading import Labels


def put(root: Path, files: dict[str, str | bytes]) -> Path:
    """Text files as they are given; images (and all else given as b"") are empty: `labels.read`
    matches names and opens no image."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def images(*names: str) -> dict[str, str | bytes]:
    return dict.fromkeys(names, b"")


def rows(data: Labels) -> list[tuple[str, int, str | None]]:
    """(path, grade, split) of the rows that can be used."""
    table = data.table[data.table["reason"].isna()]
    return list(zip(table["path"], table["grade"].tolist(), table["split"], strict=True))


def workbook(*table: list[object]) -> bytes:
    """An .xlsx file with one sheet, as Excel and openpyxl lay it out: shared strings, numbers."""
    words = [cell for row in table for cell in row if isinstance(cell, str)]
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    cells = "".join(
        f'<row r="{r + 1}">'
        + "".join(
            f'<c r="{chr(65 + c)}{r + 1}" t="s"><v>{words.index(cell)}</v></c>'
            if isinstance(cell, str)
            else f'<c r="{chr(65 + c)}{r + 1}"><v>{cell}</v></c>'
            for c, cell in enumerate(row)
        )
        + "</row>"
        for r, row in enumerate(table)
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as book:
        strings = "".join(f"<si><t>{word}</t></si>" for word in words)
        book.writestr("xl/sharedStrings.xml", f"<sst {space}>{strings}</sst>")
        sheet = f"<worksheet {space}><sheetData>{cells}</sheetData></worksheet>"
        book.writestr("xl/worksheets/sheet1.xml", sheet)
    return out.getvalue()
