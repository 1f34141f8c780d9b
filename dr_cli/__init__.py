"""Grade diabetic retinopathy from photographs of the retina.

The rooms, from the street down:

    cli/          what a person types and sees          report/      what a person looks at
    trainer.py    the loop (profile.py: its clock)      grader.py    a run put to work
    planning.py   what is decided before it             crossval.py  K runs read as one
    results.py    a run's predictions -> its record     pictures.py  what a report shows of them
    evaluation.py, comparison.py, predictions.py, metrics.py, bootstrap.py   the figures
    audit.py      what a data set holds                 splits.py, duplicates.py   who stands where
    labels.py     a folder -> one table: layouts.py names them, recognise.py tells them,
                  tables.py and npz.py read, files.py finds the images
    dataset.py    crops, and batches of them            cache.py     crops on disk
    fundus.py     one photograph                        augment.py   a batch, changed at random
    sample.py     draws the built-in sample set         heatmap.py   where the network looked
    resnet.py     five networks (weights.py: starts)    losses.py    what is minimised
    runs.py       the run folder                        confusion.py, curves.py   its pictures
    device.py     which processor, which precision      randomness.py   numbers by address
    config.py     every option of a run                 events.py, errors.py, grades.py

Arrows run down, and nothing below `cli` knows Rich or Typer.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dr_cli.dataset.dataset import FundusDataset
    from dr_cli.network.grader import Grader
    from dr_cli.network.resnet import build_resnet
    from dr_cli.plots.confusion import ConfusionMatrix

__version__ = "0.1.0"
__all__ = ["ConfusionMatrix", "FundusDataset", "Grader", "build_resnet"]

_HOMES = {
    "ConfusionMatrix": "plots.confusion",
    "FundusDataset": "dataset.dataset",
    "Grader": "network.grader",
    "build_resnet": "network.resnet",
}


def __getattr__(name: str) -> Any:
    """The public names, loaded on use: importing dr_cli itself costs next to nothing."""
    if name in _HOMES:
        return getattr(import_module(f"dr_cli.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dr_cli' has no attribute {name!r}")
