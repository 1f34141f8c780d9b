"""Grade diabetic retinopathy from photographs of the retina.

The house, from the street down; a folder is a wing, and its docstring says what stands there:

    cli/          what a person types and sees
    report/       what a person reads: runs become one page
    training/     THE TRAINER: what is decided before a run, the run, K runs as one
    scoring/      predictions -> figures with intervals, and the record that everybody reads
    network/      THE RESNET FACTORY: five networks, their starts, a trained one put to work
    dataset/      THE DATASET: photographs as torch wants them, and batches of them
    labels/       a folder -> one table, and every row its split
    photographs/  one photograph: opened, its field found, cropped, judged; crops kept
    plots/        THE CONFUSION-MATRIX RENDERER and the other pictures
    sample/       eyes drawn by procedure

and the ground that all stand on: runs (the run folder), writing (files whole or not at all),
device (which processor, which precision), machine (cores and memory), randomness (numbers by
address), grades (the scale, and how probabilities become a grade), words (numbers for people),
markup (tables for a notebook), events (what the core tells whoever watches), errors (each with its
exit code), interrupts (signals that ask to stop).

Arrows run down, and nothing below `cli` knows Rich or Typer.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dr_cli.dataset.dataset import FundusDataset
    from dr_cli.network.grader import Grader
    from dr_cli.network.records import Records
    from dr_cli.network.resnet import build_resnet
    from dr_cli.plots.confusion import ConfusionMatrix
    from dr_cli.scoring.of_run import evaluate
    from dr_cli.training.config import TrainConfig
    from dr_cli.training.session import dry_run, train
    from dr_cli.training.setting import Setting

__version__ = "0.1.0"
_HOMES = {
    "ConfusionMatrix": "plots.confusion",
    "FundusDataset": "dataset.dataset",
    "Grader": "network.grader",
    "Records": "network.records",
    "Setting": "training.setting",
    "TrainConfig": "training.config",
    "build_resnet": "network.resnet",
    "dry_run": "training.session",
    "evaluate": "scoring.of_run",
    "train": "training.session",
}
__all__ = [
    "ConfusionMatrix", "FundusDataset", "Grader", "Records", "Setting", "TrainConfig",
    "build_resnet", "dry_run", "evaluate", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """The public names, loaded on use: importing dr_cli itself costs next to nothing."""
    if name in _HOMES:
        return getattr(import_module(f"dr_cli.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dr_cli' has no attribute {name!r}")
