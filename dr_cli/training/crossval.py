"""Runs made of runs: the held-out parts of K folds, or the mean of several seeds, read as one.

Every usable photograph is held out once, whatever split its data set names, and is predicted by
a network that saw neither it nor its patient nor a duplicate of it, not even to pick an epoch:
each fold's validation photographs come from the other folds. So the pooled predictions are test
predictions, and small sets get an interval as narrow as they can give.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from dr_cli import runs
from dr_cli.grades import Calibration, Fellow
from dr_cli.photographs import duplicates
from dr_cli.scoring.calibration import choose_cuts, choose_operating_point
from dr_cli.scoring.predictions import PROBABILITIES
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


def average(run: runs.Run, seeds: Sequence[runs.Run]) -> dict[str, Any]:
    """Writes into `run` the mean probabilities of its finished seeds, which share their split;
    returns its summary. Thresholds are chosen on the mean of the validation predictions."""
    _write_splits(run, seeds[-1].splits(), seeds[0])  # the last knows best what was lost
    rows = _mean_epochs(seeds)
    write_csv(run["metrics.csv"], runs.METRICS, rows)
    tables = {
        split: _mean_predictions([seed.predictions(split) for seed in seeds])
        for split in ("val", "test")
        if seeds[0].has(split)
    }
    chosen = Calibration()
    if "val" in tables:
        grade, said = tables["val"]["grade"].to_numpy(), tables["val"][PROBABILITIES].to_numpy()
        each = [seed.calibration() for seed in seeds]
        fellow = Fellow.pooled([one.fellow for one in each])
        chosen = Calibration(None, None, choose_operating_point(grade, said), fellow=fellow)
        chosen = choose_cuts(chosen, grade, said, each[0].decision)
    for table in tables.values():
        table["predicted"] = chosen.decide(table[PROBABILITIES].to_numpy())
    run.write_config(replace(run.config(), chosen=chosen))
    return write_findings(run, tables, rows, _agreed_pictures(list(tables.values())[-1], seeds))


def _mean_predictions(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """A predictions table with the mean probabilities, of the images that all of them predicted:
    one that was lost on the way is in none from then on."""
    common = set.intersection(*(set(table["path"]) for table in tables))
    tables = [table[table["path"].isin(common)].reset_index(drop=True) for table in tables]
    mean = np.mean([table[PROBABILITIES].to_numpy() for table in tables], axis=0)
    table = tables[0].copy()
    table[PROBABILITIES] = mean.round(6)
    return table


def _agreed_pictures(table: pd.DataFrame, seeds: Sequence[runs.Run]) -> list[dict[str, Any]]:
    """The seeds' pictures, each photograph once, where the heatmap is of the grade that the mean
    gives, with the mean's probabilities."""
    rows = table.set_index("path")
    kept: dict[str, dict[str, Any]] = {}
    for entry in (entry for seed in seeds for entry in seed.pictures()):
        if entry["path"] not in rows.index:  # lost by a later seed
            continue
        row = rows.loc[entry["path"]]
        if entry["path"] not in kept and entry["predicted"] == row["predicted"]:
            mean = [float(row[name]) for name in PROBABILITIES]
            kept[entry["path"]] = entry | {"probabilities": mean}
    return pictures.pool_pictures(list(kept.values()))


def _pool_splits(run: runs.Run, folds: Sequence[runs.Run]) -> None:
    """splits.csv: every held-out row is test, with the fold that held it out."""
    tables = [fold.splits() for fold in folds]
    pooled = tables[0].assign(fold=pd.Series([pd.NA] * len(tables[0]), dtype="Int64"))
    for number, table in enumerate(tables, start=1):
        held = (table["split"] == "test").to_numpy()
        pooled.loc[held, "split"], pooled.loc[held, "fold"] = "test", number
    pooled["left_out_of"] = pooled["reason"].notna().map({True: "test", False: None})
    _write_splits(run, pooled, folds[0])


def _write_splits(run: runs.Run, splits: pd.DataFrame, member: runs.Run) -> None:
    """splits.csv and hashes.npz; the hashes are any member's, whose rows are the same."""
    run.write_table("splits.csv", list(splits.columns), splits)
    if (hashes := member.hashes(duplicates.VERSION)) is not None:
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
