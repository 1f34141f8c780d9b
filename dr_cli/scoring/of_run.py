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
from dr_cli.grades import Calibration
from dr_cli.runs import Run
from dr_cli.scoring import calibration, comparison
from dr_cli.scoring.baselines import count_leaks, score_baselines
from dr_cli.scoring.intervals import REPLICATES
from dr_cli.scoring.predictions import PROBABILITIES
from dr_cli.scoring.record import Context, Record, build_record

if TYPE_CHECKING:
    import pandas as pd

OPTIMISTIC = {
    "train": "the network learned from these images: these figures are optimistic",
    "val": "epoch, temperature and thresholds were chosen on these validation images: these "
    "figures are optimistic",
    "all": "the network learned from some of these images, or was chosen on them: these figures "
    "are optimistic",
}
PICKED_ON_TEST = "the epoch was picked on the test set (--val test): these figures are optimistic"


@dataclass(frozen=True)
class Rules:
    """How probabilities become grades and alarms; None is what the run itself chose.

    decision: "argmax" or "thresholds"; operating_point: a rule of `calibration.parse_rule`. What
    has to be chosen anew is chosen on the run's validation predictions.
    """

    decision: str | None = None
    operating_point: str | None = None


def evaluate(
    run: Run | str | Path,
    data: str | Path | None = None,
    split: str | None = None,
    *,
    rules: Rules = Rules(),
    bootstrap: int = REPLICATES,
    seed: int = 0,
    by: str | None = None,
    layout: str = "auto",
    columns: Mapping[str, str | None] | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    batch_size: int | None = None,
    tta: bool = False,
    observer: Observer = NOTHING,
) -> Record:
    """What `dr eval RUN [DATA]` prints: the record of a finished run, or of its network on data.

        record = evaluate("runs/resnet18")
        record["qwk"]                      # {"value": 0.71, "ci95": [0.64, 0.78]}

    Without data the prediction files of the run are scored; all after `by` is about data alone.
    split: "val", "test" or "all", with data "train", too; by default test, else val, else all.
    bootstrap: replicates of the 95% intervals over patients; 0 gives none. by: a column of the
    labels to give the figures by, too. columns: the names of a table's columns, by "image",
    "grade", "patient", "split". tta: the mean over four flips.

    The record goes into JSON as it is; README names its fields. Rates, AUC, ECE and probabilities
    are in [0, 1], kappa in [-1, 1], mean_absolute_error in grades, nll in nats. Raises UsageError
    where run is not finished, has no such split or column, or data cannot be scored.
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    if data is None:
        split = choose_split(run, split)
        return evaluate_run(run, split, rules, bootstrap=bootstrap, seed=seed, by=by)
    return evaluate_on(
        run, Path(data), split, rules, bootstrap=bootstrap, seed=seed, by=by, layout=layout,
        columns=columns, device=device, precision=precision, workers=workers,
        batch_size=batch_size, tta=tta, observer=observer,
    )  # fmt: skip


def choose_split(run: Run, split: str | None = None) -> str:
    """What to score of a finished run's prediction files: split, by default test, else val.

    Raises UsageError where the run is not finished or has no such predictions.
    """
    run.summary()
    split = split or ("test" if run.has("test") else "val")
    if split == "train":
        raise UsageError(
            f"{run.folder} keeps no predictions of its training split: give DATA to run the network"
        )
    if split != "all" and not run.has(split):
        has = " and ".join(s for s in ("val", "test") if run.has(s)) or "none"
        raise UsageError(f"{run.folder} has no {split} split: it has {has}")
    return split


def evaluate_run(
    run: Run,
    split: str,
    rules: Rules = Rules(),
    *,
    bootstrap: int = REPLICATES,
    seed: int = 0,
    by: str | None = None,
) -> Record:
    """The record of "val", "test" or "all" of a run, from its prediction files."""
    chosen, labels = recalibrate(run, rules), run.splits()
    table = _decide(_gather_predictions(run, split), run, chosen)
    if by is not None and by not in table:
        table = _add_columns(table, labels)
    context = _describe(run, split, labels)
    return build_record(table, context, calibration=chosen, bootstrap=bootstrap, seed=seed, by=by)


def evaluate_on(
    run: Run,
    data: Path,
    split: str | None = None,
    rules: Rules = Rules(),
    *,
    bootstrap: int = REPLICATES,
    seed: int = 0,
    by: str | None = None,
    layout: str = "auto",
    columns: Mapping[str, str | None] | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    batch_size: int | None = None,
    tta: bool = False,
    observer: Observer = NOTHING,
) -> Record:
    """The record of the run's network on graded photographs, decoded and graded now.

    On the run's own data (the same fingerprint) the splits are the run's; elsewhere those that
    the data brings, and where it brings none, all of it. Raises UsageError for an empty split.
    """
    from dr_cli.dataset.dataset import FundusDataset
    from dr_cli.dataset.feeding import batches
    from dr_cli.labels import reading
    from dr_cli.labels.columns import Columns
    from dr_cli.network.grader import Grader

    chosen = recalibrate(run, rules)
    grader = Grader.load(run.folder, device=device, precision=precision)
    read = reading.read(data, layout=layout, columns=Columns(**(columns or {})), observer=observer)
    reading.need_images(read)
    own = read.fingerprint == run.config().data.fingerprint
    labels = run.splits() if own else read.table
    split, rows = _take_split(labels, split, data)
    dataset = FundusDataset(
        read.root, rows["path"], rows["grade"], grader.preprocessing, observer=observer,
        workers=workers,
    )  # fmt: skip
    for path, reason in dataset.failed:
        observer.warning(f"{path}: {reason}")
    good = dataset.readable
    probabilities = grader.probabilities(
        batches(dataset, good, batch_size or grader.processor.inference_batch),
        lambda done: observer.progress("photographs graded", done, len(good)),
        tta,
    )
    table = tabulate(dataset.mark_gradable(rows).iloc[good], probabilities, chosen)
    lost = labels["reason"].fillna("").str.startswith((reading.MISSING, reading.UNREADABLE))
    context = Context(run.name, str(data), split)
    if own:
        context = _describe(run, split, labels, again=True)
    context = replace(context, failed=len(dataset.failed) + int(lost.sum()))
    return build_record(table, context, calibration=chosen, bootstrap=bootstrap, seed=seed, by=by)


def compare_runs(
    runs: Sequence[Run],
    split: str,
    rules: Rules = Rules(),
    bootstrap: int = REPLICATES,
    names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Every pair of two or more finished runs on the same images, see `comparison.compare`.

    rules hold for each of them; what has to be chosen anew is chosen on its own validation.
    names: what a pair calls them, by default their folders.
    """
    names = names or [str(run.folder) for run in runs]
    chosen = [recalibrate(run, rules) for run in runs]
    tables = [
        _decide(_gather_predictions(run, choose_split(run, split)), run, one)
        for run, one in zip(runs, chosen, strict=True)
    ]
    points = [one.operating_point for one in chosen]
    return comparison.compare(
        list(zip(names, tables, strict=True)),
        operating=dict(zip(names, points, strict=True)),
        bootstrap=bootstrap,
    )


def recalibrate(run: Run, rules: Rules = Rules()) -> Calibration:
    """The run's own calibration, with what `rules` ask for chosen anew on its validation."""
    chosen = run.calibration()
    if rules.decision == "argmax":
        chosen = replace(chosen, cuts=None)
    elif rules.decision not in (None, chosen.decision):
        cuts = calibration.fit_thresholds(*_validation(run, "--decision thresholds"))
        chosen = replace(chosen, cuts=cuts)
    point = chosen.operating_point
    if rules.operating_point is not None:
        calibration.parse_rule(rules.operating_point)
        point = calibration.choose_operating_point(
            *_validation(run, "--operating-point"), rules.operating_point
        )
    if point is not None:
        point = replace(point, source=f"val of {run.name}", data=run.config().data.root)
    return replace(chosen, operating_point=point)


def tabulate(
    rows: "pd.DataFrame", probabilities: NDArray[np.float64], calibration: Calibration
) -> "pd.DataFrame":
    """Rows (path, grade, patient, eye) with p0–p4 ([N, 5]) and predicted: a predictions file.

    Probabilities are rounded before the decision, so whoever reads the file decides the same.
    """
    table, probabilities = rows.reset_index(drop=True), probabilities.round(6)
    table[PROBABILITIES] = probabilities
    table["predicted"] = calibration.decide(probabilities)
    return table


# --- from the run's files


def _gather_predictions(run: Run, split: str) -> "pd.DataFrame":
    """The run's prediction file of a split; "all" pools validation and test."""
    import pandas as pd

    wanted = [s for s in ("val", "test") if run.has(s)] if split == "all" else [split]
    return pd.concat([run.predictions(s) for s in wanted], ignore_index=True)


def _decide(table: "pd.DataFrame", run: Run, calibration: Calibration) -> "pd.DataFrame":
    """The table, with `predicted` by another decision where one was asked for."""
    if calibration.cuts == run.calibration().cuts:
        return table
    probabilities = table[PROBABILITIES].to_numpy()
    return table.assign(predicted=calibration.decide(probabilities))


def _add_columns(table: "pd.DataFrame", labels: "pd.DataFrame") -> "pd.DataFrame":
    """The predictions with the label table's further columns (camera, site, …), by path."""
    further = [c for c in labels if c == "path" or c not in table]
    return table.merge(labels[further].drop_duplicates("path"), on="path", how="left")


def _validation(run: Run, flag: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Grades [N] and probabilities [N, 5] of the run's validation images."""
    if not run.has("val"):
        raise UsageError(f"{flag} is chosen on validation predictions: {run.folder} has none")
    table = run.predictions("val")
    return table["grade"].to_numpy(), table[PROBABILITIES].to_numpy()


def _take_split(
    labels: "pd.DataFrame", split: str | None, data: Path
) -> tuple[str, "pd.DataFrame"]:
    """The split (default: test, else val, else all) and its usable rows."""
    present = list(labels["split"].dropna().unique())
    split = split or next((s for s in ("test", "val") if s in present), "all")
    asked = (labels["split"] == split) | (split == "all")
    rows = labels[labels["reason"].isna() & asked].reset_index(drop=True)
    if rows.empty:
        raise UsageError(
            f"{data} has no {split} split (it has {', '.join(present) or 'none at all'}): "
            "--split all takes every photograph"
        )
    return split, rows


def _describe(run: Run, split: str, labels: "pd.DataFrame", again: bool = False) -> Context:
    """What stands beside the figures of a run's split: baselines, leaks, warnings.

    labels: the run's splits.csv. again: its networks look at the images now; those of a
    cross-validation were each trained on most of them.
    """
    config = run.config()
    context = Context(run.name, config.data.root, split)
    judged, warnings = split, []
    if split in ("val", "test"):
        if config.options["val"] == "test":
            judged = "test"
            warnings = [PICKED_ON_TEST]
        elif split == "val":
            warnings = [OPTIMISTIC["val"]]
        usable = labels[labels["reason"].isna()]
        context = replace(
            context,
            baselines=score_baselines(usable, judged),
            leaks=count_leaks(usable) if judged == "test" else None,
        )
    elif split == "train" or run.has("val"):
        warnings = [OPTIMISTIC[split]]
    if again and len(run.networks()) > 1 and OPTIMISTIC["all"] not in warnings:
        warnings.append(OPTIMISTIC["all"])
    return replace(context, warnings=tuple(warnings))
