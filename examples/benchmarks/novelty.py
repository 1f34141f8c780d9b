"""Does `novelty` tell one camera's photographs from another's? AUC, and the share above 1.

    python examples/benchmarks/novelty.py runs/aptos ../shared/data/idrid FOLDER...

RUN has a validation split: its photographs, which the network has not learned from, are compared
with those of each FOLDER. Also by the number of directions that are kept one by one.

Measured: see `dr_cli.network.novelty`.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from dr_cli import device
from dr_cli.dataset.dataset import FundusDataset
from dr_cli.network import novelty
from dr_cli.network.grader import Member
from dr_cli.photographs.decoding import EXTENSIONS
from dr_cli.runs import Run


def features(member: Member, root: Path, paths: list[str]) -> np.ndarray:
    """Pooled features of the readable ones: [n, C]."""
    photographs = FundusDataset(root, paths, [0] * len(paths), member.preprocessing)

    def see() -> Iterator[np.ndarray]:
        for rows in np.array_split(photographs.readable, -(-len(photographs.readable) // 32)):
            yield member.look(torch.from_numpy(photographs.crops(rows)))[1].cpu().numpy()

    return np.concatenate(list(see()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--every", type=int, default=2, help="of a folder, one in so many")
    asked = parser.parse_args()
    run = Run(asked.run)
    member = Member.load(run.folder, device.choose("cpu"))
    splits, root = run.splits(), Path(run.config().data.root)
    own = {
        split: features(member, root, splits.loc[splits["split"] == split, "path"].tolist())
        for split in ("train", "val")
    }
    for folder in asked.folders:
        found = sorted(f for f in folder.rglob("*") if f.suffix.lower() in EXTENSIONS)
        paths = [str(file.relative_to(folder)) for file in found][:: asked.every]
        other = features(member, folder, paths)
        truth = np.repeat([0, 1], [len(own["val"]), len(other)])
        for count in (8, 16, novelty.DIRECTIONS, 64, 128):
            with patch.object(novelty, "DIRECTIONS", count):
                known = novelty.Familiar.fit(own["train"], own["val"])
            assert known is not None
            near, far = known.novelty(own["val"]), known.novelty(other)
            auc = roc_auc_score(truth, np.concatenate([near, far]))
            print(
                f"{folder} ({len(other)}), {count} directions: AUC {auc:.3f}, above 1: "
                f"{(far > 1).mean():.0%}, of {run.name}'s val ({len(near)}) {(near > 1).mean():.0%}"
            )


if __name__ == "__main__":
    main()
