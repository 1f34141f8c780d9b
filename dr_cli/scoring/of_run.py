"""A run's predictions and what was chosen on its validation images -> the record reported.

`trainer` (for summary.json), `dr eval` and `dr report` all come here, so they agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import NUM_GRADES, Calibration
from dr_cli.labels import splits
from dr_cli.runs import Run
from dr_cli.scoring import metrics
from dr_cli.scoring import record as evaluation
from dr_cli.scoring.predictions import PROBABILITIES

if TYPE_CHECKING:
    import pandas as pd

OPTIMISTIC = {
    "train": "the network learned from these images: these figures are optimistic",
    "val": "epoch, temperature and thresholds were chosen on these validation images: these "
    "figures are optimistic",
    "all": "the network learned from some of these images, or was chosen on them: these figures "
    "are optimistic",
}


@dataclass(frozen=True)
class Rules:
    """How probabilities become grades and alarms; None is what the run itself chose.

    decision: "argmax" or "thresholds"; operating_point: a rule of `metrics.parse_rule`. What has
    to be chosen anew is chosen on the run's validation predictions.
    """

    decision: str | None = None
    operating_point: str | None = None


def of_run(run: Run, split: str, rules: Rules | None = None, **options: Any) -> dict[str, Any]:
    """The record of "val", "test" or "all" of a run, from its prediction files.

    options: bootstrap, seed, by, as `evaluation.evaluate` takes them.
    """
    chosen = calibration_of(run, rules or Rules())
    table = predictions_of(run, split)
    if options.get("by") not in (None, *table.columns):
        table = _with_columns(table, run.splits())
    return evaluation.evaluate(
        _decided(table, run, chosen),
        run=run.name,
        data=run.config().data.root,
        split=split,
        operating=chosen.operating_point,
        temperature=chosen.temperature,
        **beside(run, split),
        **options,
    )


def predictions_of(run: Run, split: str) -> "pd.DataFrame":
    """The run's prediction file of a split; "all" pools validation and test."""
    import pandas as pd

    wanted = [s for s in ("val", "test") if run.has(s)] if split == "all" else [split]
    return pd.concat([run.predictions(s) for s in wanted], ignore_index=True)


def _with_columns(table: "pd.DataFrame", labels: "pd.DataFrame") -> "pd.DataFrame":
    """The predictions with the label table's further columns (camera, site, …), by path."""
    further = [c for c in labels if c == "path" or c not in table]
    return table.merge(labels[further].drop_duplicates("path"), on="path", how="left")


def on_data(
    run: Run,
    data: Path,
    split: str | None,
    rules: Rules | None = None,
    *,
    layout: str = "auto",
    columns: Mapping[str, str | None] | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    batch_size: int | None = None,
    tta: bool = False,
    observer: Observer = NOTHING,
    **options: Any,
) -> dict[str, Any]:
    """The record of the run's network on graded photographs, decoded and graded now.

    On the run's own data (the same fingerprint) the splits are the run's; elsewhere those that
    the data brings, and where it brings none, all of it. Raises UsageError for an empty split.
    """
    from dr_cli.dataset.dataset import FundusDataset, batches
    from dr_cli.device import choose
    from dr_cli.labels import reading as labels
    from dr_cli.labels.columns import Columns
    from dr_cli.network.grader import Member, logits_of

    processor = choose(device, precision)
    members = [Member(folder, processor) for folder in run.networks()]
    read = labels.read(data, layout=layout, columns=Columns(**(columns or {})), observer=observer)
    labels.need_images(read)
    made = run.config().data
    own = read.fingerprint == made.fingerprint
    split, rows = _rows(run.splits() if own else read.table, split, data)
    dataset = FundusDataset(
        read.root, rows["path"], rows["grade"], members[0].preprocessing, observer=observer,
        workers=workers,
    )  # fmt: skip
    for path, reason in dataset.failed:
        observer.warning(f"{path}: {reason}")
    good = dataset.readable
    probabilities = np.mean(
        [
            member.calibration.probabilities(
                logits_of(
                    member.network,
                    batches(dataset, good, batch_size or processor.inference_batch),
                    member.preprocessing,
                    processor,
                    lambda done: observer.progress("photographs graded", done, len(good)),
                    tta,
                )
            )
            for member in members
        ],
        axis=0,
    )
    chosen = calibration_of(run, rules or Rules())
    reasons = (run.splits() if own else read.table)["reason"].fillna("")
    lost = reasons.str.startswith((labels.MISSING, labels.UNREADABLE))
    return evaluation.evaluate(
        predicted(dataset.judged(rows).iloc[good], probabilities, chosen),
        run=run.name,
        data=made.root if own else str(data),
        split=split,
        failed=len(dataset.failed) + int(lost.sum()),
        operating=chosen.operating_point,
        temperature=chosen.temperature,
        **(_seen(run, split) if own else {}),
        **options,
    )


def _seen(run: Run, split: str) -> dict[str, Any]:
    """`beside`, for networks that look at the run's data again: those of a cross-validation were
    each trained on most of it."""
    found = beside(run, split)
    if len(run.networks()) > 1 and OPTIMISTIC["all"] not in found["warnings"]:
        found["warnings"].append(OPTIMISTIC["all"])
    return found


def _rows(table: "pd.DataFrame", split: str | None, data: Path) -> tuple[str, "pd.DataFrame"]:
    """The split (default: test, else val, else all) and its usable rows."""
    present = list(table["split"].dropna().unique())
    split = split or next((s for s in ("test", "val") if s in present), "all")
    asked = (table["split"] == split) | (split == "all")
    rows = table[table["reason"].isna() & asked].reset_index(drop=True)
    if rows.empty:
        raise UsageError(
            f"{data} has no {split} split (it has {', '.join(present) or 'none at all'}): "
            "--split all takes every photograph"
        )
    return split, rows


def predicted(
    rows: "pd.DataFrame",
    probabilities: NDArray[np.float64],
    calibration: Calibration,
) -> "pd.DataFrame":
    """Rows (path, grade, patient, eye) with p0–p4 ([N, 5]) and predicted: a predictions file.

    Probabilities are rounded before the decision, so whoever reads the file decides the same.
    """
    table = rows.reset_index(drop=True)
    probabilities = probabilities.round(6)
    for grade in range(NUM_GRADES):
        table[f"p{grade}"] = probabilities[:, grade]
    table["predicted"] = calibration.decide(probabilities)
    return table


def calibration_of(run: Run, rules: Rules) -> Calibration:
    """The run's own calibration, with what `rules` ask for chosen anew on its validation."""
    chosen = run.calibration()
    if rules.decision == "argmax":
        chosen = replace(chosen, cuts=None)
    elif rules.decision not in (None, chosen.decision):
        cuts = metrics.fit_thresholds(*_validation(run, "--decision thresholds"))
        chosen = replace(chosen, cuts=tuple(cuts))
    point = chosen.operating_point
    if rules.operating_point is not None:
        metrics.parse_rule(rules.operating_point)
        point = metrics.operating_point(
            *_validation(run, "--operating-point"), rules.operating_point
        )
    if point is not None:
        point = replace(point, source=f"val of {run.name}", data=run.config().data.root)
    return replace(chosen, operating_point=point)


def _validation(run: Run, flag: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Grades [N] and probabilities [N, 5] of the run's validation images."""
    if not run.has("val"):
        raise UsageError(f"{flag} is chosen on validation predictions: {run.folder} has none")
    table = run.predictions("val")
    return table["grade"].to_numpy(), table[list(PROBABILITIES)].to_numpy()


def _decided(table: "pd.DataFrame", run: Run, calibration: Calibration) -> "pd.DataFrame":
    """The table, with `predicted` by another decision where one was asked for."""
    if calibration.cuts == run.calibration().cuts:
        return table
    probabilities = table[list(PROBABILITIES)].to_numpy()
    return table.assign(predicted=calibration.decide(probabilities))


def beside(run: Run, split: str) -> dict[str, Any]:
    """What stands beside the figures of a run's split: baselines, leaks, warnings."""
    if split not in ("val", "test"):
        seen = split == "train" or run.has("val")
        return {"warnings": [OPTIMISTIC[split]] if seen else []}
    table = run.splits()
    usable = table[table["reason"].isna()]
    warnings = []
    if run.config().options["val"] == "test":
        split = "test"
        warnings.append(
            "the epoch was picked on the test set (--val test): these figures are optimistic"
        )
    elif split == "val":
        warnings.append(OPTIMISTIC["val"])
    return {
        "baselines": splits.baselines(usable, split),
        "leaks": splits.leaks(usable) if split == "test" else None,
        "warnings": warnings,
    }


def compared(
    compared_runs: Sequence[Run], split: str, rules: Rules | None = None, bootstrap: int = 2000
) -> list[dict[str, Any]]:
    """Every pair of two or more runs on the same images, see `comparison.compare`.

    rules hold for each of them; what has to be chosen anew is chosen on its own validation.
    """
    from dr_cli.scoring import comparison

    chosen = {str(run.folder): calibration_of(run, rules or Rules()) for run in compared_runs}
    return comparison.compare(
        [
            (name, _decided(predictions_of(run, split), run, calibration))
            for run, (name, calibration) in zip(compared_runs, chosen.items(), strict=True)
        ],
        operating={name: calibration.operating_point for name, calibration in chosen.items()},
        bootstrap=bootstrap,
    )
