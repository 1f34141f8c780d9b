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
from dr_cli.grades import Calibration
from dr_cli.photographs import duplicates
from dr_cli.training import pictures
from dr_cli.training.trainer import write_findings
from dr_cli.writing import write_csv


def pool(run: runs.Run, folds: Sequence[runs.Run]) -> dict[str, Any]:
    """Writes into `run` what its finished folds found together; returns its summary."""
    tables = [fold.predictions("test") for fold in folds]
    _pool_splits(run, folds)
    rows = _mean_epochs(folds)
    write_csv(run["metrics.csv"], runs.METRICS, rows)
    # Each fold was calibrated and decided by its own choices; on other photographs their means do.
    chosen = Calibration.pooled([fold.calibration() for fold in folds])
    chosen = replace(chosen, temperature=None)
    run.write_config(replace(run.config(), chosen=chosen, start=_add_starts(folds)))
    shown = [entry for fold in folds for entry in fold.pictures()]
    pooled = {"test": pd.concat(tables, ignore_index=True)}
    return write_findings(run, pooled, rows, pictures.pool_pictures(shown))


def _pool_splits(run: runs.Run, folds: Sequence[runs.Run]) -> None:
    """splits.csv: every held-out row is test, with the fold that held it out."""
    tables = [fold.splits() for fold in folds]
    pooled = tables[0].assign(fold=pd.Series([pd.NA] * len(tables[0]), dtype="Int64"))
    for number, table in enumerate(tables, start=1):
        held = (table["split"] == "test").to_numpy()
        pooled.loc[held, "split"], pooled.loc[held, "fold"] = "test", number
    pooled["left_out_of"] = pooled["reason"].notna().map({True: "test", False: None})
    run.write_table("splits.csv", list(pooled.columns), pooled)
    if (hashes := folds[0].hashes(duplicates.VERSION)) is not None:  # the rows are the same
        run.write_hashes(hashes, duplicates.VERSION)


def _add_starts(folds: Sequence[runs.Run]) -> dict[str, int] | None:
    """How many of the held-out images the folds' start has seen (`RunConfig.start`)."""
    known = [start for fold in folds if (start := fold.config().start)]
    return {"test": sum(start["test"] for start in known), "val": 0} if known else None


def _mean_epochs(folds: Sequence[runs.Run]) -> list[dict[str, Any]]:
    """An epoch's figures, averaged over the folds that reached it; undefined ones left out."""
    rows = pd.concat([pd.DataFrame(fold.history(), dtype=float) for fold in folds])
    mean = rows.groupby("epoch", as_index=False).mean().astype({"epoch": int}).astype(object)
    return [
        {str(name): value for name, value in row.items()}
        for row in mean.where(mean.notna(), None).to_dict("records")
    ]
