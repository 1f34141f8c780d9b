import base64
import io

import numpy as np
import pandas as pd
from PIL import Image

from dr_cli.dataset.dataset import FundusDataset
from dr_cli.network.resnet import build_resnet
from dr_cli.photographs.crop import Preprocessing
from dr_cli.training import pictures
from tests.builders import photographs


def predictions(grade, predicted, sure):
    table = pd.DataFrame({"path": [f"{k}.png" for k in range(len(grade))], "grade": grade})
    table["predicted"] = predicted
    for k in range(5):
        table[f"p{k}"] = [
            s if p == k else (1 - s) / 4 for p, s in zip(predicted, sure, strict=True)
        ]
    return table


def test_the_worst_mistakes_come_first_and_the_surest_right_ones_follow():
    table = predictions([0, 4, 4, 2, 2, 2], [0, 0, 0, 2, 2, 2], [0.9, 0.5, 0.8, 0.6, 0.9, 0.7])
    assert pictures.choose_rows(table) == [
        (2, "mistake"), (1, "mistake"), (0, "right"), (4, "right"), (5, "right")
    ]  # fmt: skip


def test_pictures_are_the_photographs_they_name(tmp_path):
    for k in range(2):
        photographs.picture(4 * k, size=64).save(tmp_path / f"{k}.png")
    dataset = FundusDataset(tmp_path, ["0.png", "1.png"], [0, 4], Preprocessing(64), cache=False)
    table = predictions([0, 4], [0, 0], [0.9, 0.6])
    made = pictures.make_pictures(table, dataset, np.arange(2), build_resnet("resnet18").eval())
    assert [entry["path"] for entry in made] == ["1.png", "0.png"]
    for entry in made:
        shown = Image.open(io.BytesIO(base64.b64decode(entry["photograph"])))
        crop = dataset.crop(int(entry["path"][0])).transpose(1, 2, 0)
        assert np.abs(np.asarray(shown, float) - crop).mean() < 8  # JPEG's own error
        assert Image.open(io.BytesIO(base64.b64decode(entry["heatmap"]))).size == shown.size
