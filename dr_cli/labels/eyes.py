"""Whose eye a photograph shows, and which of the two: from its name, or a table of pairs."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from dr_cli.errors import UsageError
from dr_cli.labels import layouts
from dr_cli.labels.layouts import Layout
from dr_cli.labels.listing import clean
from dr_cli.labels.tables import Table, quote
from dr_cli.photographs.decoding import DICOM, identify


def take_stems(names: pd.Series) -> pd.Series:
    """Names without folders and extension."""
    return pd.Series([_take_stem(name) for name in names], names.index, dtype=object)


def _take_stem(name: str) -> str:
    base = name.rpartition("/")[2]
    stem, dot, extension = base.rpartition(".")
    return stem if dot and extension.replace("_", "x").isalnum() else base


def read_dicom(rows: pd.DataFrame, root: Path) -> pd.DataFrame:
    """The rows with patient and eye from their DICOM files where no column told them; what cannot
    be read tells nothing here, and is told when it is decoded."""
    kind = np.array([path.lower().endswith(DICOM) for path in rows["path"]], bool)
    unknown = kind & rows["patient"].isna() & rows["reason"].isna()
    rows = rows.astype({"patient": object, "eye": object})
    told = [identify(root, path) for path in rows.loc[unknown, "path"]]
    rows.loc[unknown, "patient"] = pd.Series([patient for patient, _ in told], dtype=object).array
    found = pd.Series([eye for _, eye in told], index=rows.index[unknown], dtype=object)
    rows["eye"] = rows["eye"].where(rows["eye"].notna(), found)
    return rows


def read_names(rows: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """The rows with patient and eye from an image's `path` where no column told them; None for
    unknown."""
    pattern = layout.name_pattern or layouts.EYE_NAME
    search = re.compile(pattern, re.IGNORECASE).search
    found = [search(_take_stem(path)) for path in rows["path"]]
    told = {
        "patient": [match and match["patient"] for match in found],
        "eye": [match and layouts.EYES.get(match["eye"].lower()) for match in found],
    }
    for column in ("patient", "eye", "split", "reason"):
        values = rows[column].astype(object)
        if column in told:
            told_here = pd.Series(told[column], rows.index, dtype=object)
            values = values.where(values.notna(), told_here)
        rows[column] = values.where(values.notna(), None)
    return rows


def read_pairs(rows: pd.DataFrame, table: Table) -> pd.DataFrame:
    """The rows with patient and eye from a table of left and right images (Messidor-2)."""
    stem = take_stems(rows["name"]).str.lower()
    for eye in ("left", "right"):
        if (column := table.find((eye,))) is None:
            raise UsageError(f"{table.path}: no column '{eye}'; it has {quote(table.columns)}")
        names = take_stems(clean(table.cells[column])).str.lower()
        pair = pd.Series([f"pair-{row}" for row in table.rows], index=names, dtype=object)
        pair = stem.map(pair[(names != "").to_numpy(bool) & ~pair.index.duplicated()])
        rows["patient"] = rows["patient"].where(pair.isna(), pair)
        rows["eye"] = rows["eye"].where(pair.isna(), eye)
    return rows
