"""dr from Python, cell by cell: train, grade, count, and a loop of your own.

    python examples/python_api.py [DATA]      DATA: graded photographs; default: drawn eyes

A cell starts at each `# %%`, as notebooks and editors know it.
"""

# %% Train a run: what `dr train` does, as one call that returns data.
import os
import sys
from pathlib import Path

import pandas as pd
import torch
from torch.utils.data import DataLoader

from dr_cli import ConfusionMatrix, FundusDataset, Grader, build_resnet
from dr_cli.cli.train import Setting, train
from dr_cli.labels import reading as labels
from dr_cli.photographs import cache
from dr_cli.photographs.crop import Preprocessing
from dr_cli.sample import drawn_set as sample
from dr_cli.training.config import TrainConfig


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else sample.ensure(cache.folder())
    size, epochs = int(os.environ.get("SIZE", 128)), int(os.environ.get("EPOCHS", 5))
    run = train(TrainConfig(size=size, epochs=epochs), Setting(data=data))
    print(run.folder)

    # %% Its figures, each with a 95% interval over patients: the record of `dr eval`.
    record = run.summary()["test"]
    for name in ("accuracy", "qwk"):
        print(name, record[name]["value"], record[name]["ci95"])
    print("baselines", record["baselines"])

    # %% Grade photographs: the records of `dr predict`, as they are known.
    table = labels.read(data).table
    table = table[table["reason"].isna() & (table["split"] == "test")]
    grader = Grader.load(run.folder)
    graded = pd.DataFrame(grader.predict([data / path for path in table["path"]]))
    print(graded[["predicted", "name", "referable_probability", "quality"]].head())

    # %% Count: rows true, columns predicted.
    matrix = ConfusionMatrix.from_predictions(table["grade"], graded["predicted"])
    print(matrix.counts)
    matrix.save(run.folder / "my-confusion.png")

    # %% A loop of your own: the data set in any DataLoader, the network like torchvision's.
    dataset = FundusDataset(data, table["path"], table["grade"], Preprocessing(size=size))
    network = build_resnet("resnet18")
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for pictures, grades in DataLoader(dataset, batch_size=8, shuffle=True):  # [8, 3, S, S], [8]
        loss = torch.nn.functional.cross_entropy(network(pictures), grades)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("loss of the last batch:", round(loss.item(), 3))


if __name__ == "__main__":  # DataLoader workers start this file anew on Windows and macOS
    main()
