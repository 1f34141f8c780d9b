"""What a trained network gives without more training: views, several networks, statistics.

    python examples/benchmarks/after_training.py RUN [RUN ...] --data DATA2 [--data DATA3]

Of each run, of their mean, and of each run with batch statistics taken anew from all of DATA2's
photographs, unlabelled (AdaBN; Li et al., arXiv 1603.04779): one view, four (mirrored) and eight
(also turned by a quarter). Of the runs' own validation and of every DATA2 whole: referable AUC, and
QWK with cuts chosen on validation under the same views. Test splits are not looked at.
"""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dr_cli import runs
from dr_cli.dataset.augment import normalise
from dr_cli.dataset.dataset import FundusDataset
from dr_cli.dataset.feeding import batches
from dr_cli.device import choose
from dr_cli.grades import Calibration, referable_probability, softmax
from dr_cli.labels import reading
from dr_cli.network.grader import Member, turn
from dr_cli.scoring import calibration, metrics

VIEWS = (1, 4, 8)
BATCH = 32


def predict(member: Member, dataset: FundusDataset, views: int) -> np.ndarray:
    """Mean probabilities [N, 5]."""
    total = np.zeros((len(dataset), 5))
    for view in range(views):
        parts = [
            member.forward(turn(pixels, view)).numpy()
            for pixels, _, _ in batches(dataset, range(len(dataset)), BATCH)
        ]
        total += softmax(np.concatenate(parts))
    return total / views


def adapt(member: Member, dataset: FundusDataset) -> Member:
    """The same network with batch statistics of these photographs."""
    other = copy.copy(member)
    other.network = copy.deepcopy(member.network)
    for part in other.network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None  # the plain mean over batches
    other.network.train()
    order = np.random.default_rng(0).permutation(len(dataset))
    with torch.no_grad(), member.processor.autocast():
        for pixels, _, _ in batches(dataset, order, BATCH):
            other.network(normalise(pixels, member.preprocessing))
    other.network.eval()
    return other


def judge(grade: np.ndarray, p: np.ndarray, cuts: tuple[float, ...]) -> dict[str, float]:
    qwk = metrics.quadratic_weighted_kappa(grade, Calibration(cuts).decide(p))
    area = metrics.auc(grade >= 2, referable_probability(p))
    return {"qwk": round(qwk, 4), "referable_auc": round(area, 4)}


def load(run: runs.Run, member: Member) -> FundusDataset:
    table = run.splits()
    rows = table[table["split"] == "val"]
    return FundusDataset(run.config().data.root, rows["path"], rows["grade"], member.preprocessing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, action="append", default=[])
    options = parser.parse_args()
    where = choose("cpu")
    each = [runs.Run(folder) for folder in options.runs]
    members = [Member.load(run.folder, where) for run in each]
    way = members[0].preprocessing
    sets = {"val": load(each[0], members[0])}
    for data in options.data:
        found = reading.read(data)
        rows = found.table[found.table["reason"].isna()]
        sets[data.name] = FundusDataset(found.root, rows["path"], rows["grade"], way)
    contestants: dict[str, list[Member]] = {
        run.name: [m] for run, m in zip(each, members, strict=True)
    }
    if len(members) > 1:
        contestants["mean"] = members
    for data in options.data:
        adapted = [adapt(member, sets[data.name]) for member in members]
        contestants[f"statistics of {data.name}"] = adapted
    told: dict[str, Any] = {}
    for name, several in contestants.items():
        for views in VIEWS:
            said = {
                key: np.mean([predict(member, data, views) for member in several], axis=0)
                for key, data in sets.items()
            }
            cuts = calibration.fit_thresholds(sets["val"].grades, said["val"])
            told[f"{name}, {views} views"] = {
                key: judge(sets[key].grades, p, cuts) for key, p in said.items()
            }
            print(f"{name}, {views} views", json.dumps(told[f"{name}, {views} views"]), flush=True)


if __name__ == "__main__":
    main()
