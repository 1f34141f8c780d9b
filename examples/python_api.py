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

from dr_cli import ConfusionMatrix, FundusDataset, Grader, TrainConfig, build_resnet, train


def main() -> None:
    data = sys.argv[1] if len(sys.argv) > 1 else None
    size, epochs = int(os.environ.get("SIZE", 128)), int(os.environ.get("EPOCHS", 5))
    run = train(data, TrainConfig(size=size, epochs=epochs))
    print(run.folder)

    # %% Its figures, each with a 95% interval over patients: the record of `dr eval`.
    record = run.summary()["test"]
    for name in ("accuracy", "qwk"):
        print(name, record[name]["value"], record[name]["ci95"])
    print("baselines", record["baselines"])

    # %% Grade photographs: the records of `dr predict`, as they are known.
    table = run.splits()
    table = table[table["split"] == "test"]
    root = Path(run.config().data.root)
    grader = Grader.load(run.folder)
    graded = pd.DataFrame(grader.predict([root / path for path in table["path"]]))
    print(graded[["predicted", "name", "referable_probability", "quality"]].head())

    # %% Count: rows true, columns predicted.
    matrix = ConfusionMatrix.from_predictions(table["grade"], graded["predicted"])
    print(matrix.counts)
    matrix.save(run.folder / "my-confusion.png")

    # %% A loop of your own: the data set in any DataLoader, the network like torchvision's.
    way = grader.members[0].preprocessing
    dataset = FundusDataset(root, table["path"], table["grade"], way)
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
