"""Cross-validation by patient: K runs in one folder, their held-out parts read as one run.

Every usable photograph is held out once, whatever split its data set names, and is predicted by
a network that saw neither it nor its patient nor a duplicate of it, not even to pick an epoch:
each fold's validation photographs come from the other folds. So the pooled predictions are test
predictions, and small sets get an interval as narrow as they can give.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from dr_cli import runs
from dr_cli.grades import pooled_decision, pooled_point
from dr_cli.labels import splits
from dr_cli.labels.reading import Labels
from dr_cli.plots import lines as curves
from dr_cli.plots.confusion import ConfusionMatrix
from dr_cli.scoring import of_run as results
from dr_cli.training import audit, pictures


def folders(run: runs.Run, folds: int) -> list[runs.Run]:
    """The K runs of a cross-validation."""
    return [runs.Run(run.folder / f"fold-{k}") for k in range(1, folds + 1)]


def hold_out(labels: Labels, seen: audit.Look, folds: int, fold: int, seed: int) -> Labels:
    """The labels with fold `fold` (from 1) as test and all else undecided."""
    of = splits.folds(labels.table, folds, seed, seen.near)["fold"].to_numpy()
    split = pd.Series(of == fold - 1).map({True: "test", False: None}).astype(object)
    return replace(labels, table=labels.table.assign(split=split))


def pool(run: runs.Run, folds: Sequence[runs.Run]) -> dict[str, Any]:
    """Writes into `run` what its finished folds found together; returns its summary."""
    tables = [fold.predictions("test") for fold in folds]
    table = pd.concat(tables, ignore_index=True)
    run.write_table("predictions-test.csv", runs.PREDICTIONS, table)
    _pool_splits(run, folds)
    rows = _mean_epochs(folds)
    runs.write_csv(run["metrics.csv"], runs.METRICS, rows)
    config = run.read_json("config.json")
    config["chosen"] = _chosen(folds)
    config["parameters"] = folds[0].read_json("config.json")["parameters"]
    runs.write_json(run["config.json"], config)
    shown = [entry for fold in folds for entry in fold.read_list("pictures.json")]
    runs.write_json(run["pictures.json"], pictures.pooled(shown))
    ConfusionMatrix.from_predictions(table["grade"], table["predicted"]).save(run["confusion.png"])
    curves.save(rows, run["curves.png"])
    summary = {"test": results.of_run(run, "test")}
    runs.write_json(run["summary.json"], summary)
    return summary


def _pool_splits(run: runs.Run, folds: Sequence[runs.Run]) -> None:
    """splits.csv: every held-out row is test, with the fold that held it out."""
    tables = [fold.splits() for fold in folds]
    pooled = tables[0].assign(fold=pd.Series([pd.NA] * len(tables[0]), dtype="Int64"))
    for number, table in enumerate(tables, start=1):
        held = (table["split"] == "test").to_numpy()
        pooled.loc[held, "split"], pooled.loc[held, "fold"] = "test", number
    run.write_table("splits.csv", list(pooled.columns), pooled)


def _mean_epochs(folds: Sequence[runs.Run]) -> list[dict[str, Any]]:
    """An epoch's figures, averaged over the folds that reached it; undefined ones left out."""
    rows = pd.concat([pd.DataFrame(fold.metrics()) for fold in folds], ignore_index=True)
    numbers = rows.apply(pd.to_numeric, errors="coerce")
    mean = numbers.groupby("epoch", as_index=False).mean().astype({"epoch": int}).astype(object)
    return [dict(row) for row in mean.where(mean.notna(), None).to_dict("records")]


def _chosen(folds: Sequence[runs.Run]) -> dict[str, Any]:
    """What stands for the folds' own choices: each was calibrated by its own temperature and
    decided by its own decision; on other photographs the means of their cuts and thresholds do."""
    models = [runs.model_record(fold.folder) for fold in folds]
    return {
        "decision": pooled_decision([model["decision"] for model in models]),
        "temperature": None,
        "operating_point": pooled_point([model["operating_point"] for model in models]),
    }
