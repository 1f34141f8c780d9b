"""pictures.json: the photographs that a report shows, with where the network looked.

Made when a run ends, while its network and crops are at hand, so that `dr report` runs none.
"""

import base64
import io
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from dr_cli.dataset.augment import normalise
from dr_cli.dataset.dataset import FundusDataset
from dr_cli.grades import NUM_GRADES
from dr_cli.network.activation import STRIDE, trace
from dr_cli.network.resnet import ResNet
from dr_cli.plots.heat import overlay
from dr_cli.scoring.predictions import PROBABILITIES

MISTAKES = 12
RIGHT_A_GRADE = 2
SIDE = 192  # pixels: a lesion of the size of a haemorrhage still shows; about 7 kB as JPEG
QUALITY = 80


def choose_rows(table: pd.DataFrame) -> list[tuple[int, str]]:
    """Rows of a predictions table that are worth a look, each with "mistake" or "right".

    The MISTAKES furthest from the true grade, of those the most confident first; and of each
    grade the RIGHT_A_GRADE most confident right ones.
    """
    grade, said = table["grade"].to_numpy(int), table["predicted"].to_numpy(int)
    sure = table[PROBABILITIES].to_numpy(float)[np.arange(len(table)), said]
    worst = np.lexsort((-sure, -np.abs(said - grade)))
    found = [(int(row), "mistake") for row in worst[:MISTAKES] if said[row] != grade[row]]
    surest = np.argsort(-sure, kind="stable")
    for one in range(NUM_GRADES):
        right = [int(row) for row in surest if grade[row] == said[row] == one]
        found += [(row, "right") for row in right[:RIGHT_A_GRADE]]
    return found


def pool_pictures(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of several runs' pictures on different photographs those that `choose_rows` takes of all."""
    if not entries:
        return []
    table = pd.DataFrame(entries)
    table[PROBABILITIES] = np.array(table["probabilities"].to_list())
    return [entries[row] for row, _ in choose_rows(table)]


def make_pictures(
    table: pd.DataFrame, dataset: FundusDataset, indices: NDArray[np.int64], network: ResNet
) -> list[dict[str, Any]]:
    """What pictures.json holds, for the rows of a predictions table that `choose_rows` takes.

    Row k of `table` is photograph `indices[k]` of `dataset`. An entry: kind, path, grade,
    predicted, probabilities [5], and `photograph` and `heatmap`, JPEG of SIDE pixels in base64.
    The heatmap is `Trace.heat` for the predicted grade over the crop.
    """
    device = next(network.parameters()).device
    entries = []
    for row, kind in choose_rows(table):
        one = table.iloc[row]
        pixels = dataset.crop(int(indices[row]))
        inputs = normalise(torch.from_numpy(pixels)[None].to(device), dataset.preprocessing)
        heat = trace(network, inputs).heat(int(one["predicted"]))[0]
        entries.append(
            {
                "kind": kind,
                "path": str(one["path"]),
                "grade": int(one["grade"]),
                "predicted": int(one["predicted"]),
                "probabilities": [float(one[name]) for name in PROBABILITIES],
                "photograph": _jpeg(Image.fromarray(pixels.transpose(1, 2, 0))),
                "heatmap": _jpeg(overlay(pixels, heat, STRIDE)),
            }
        )
    return entries


def _jpeg(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    picture.save(data, "JPEG", quality=QUALITY)
    return base64.b64encode(data.getvalue()).decode("ascii")
