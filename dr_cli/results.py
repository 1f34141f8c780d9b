"""A run's own predictions and facts, brought together into the record that is reported.

`trainer` (for summary.json), `dr eval` and `dr report` all come here, so they agree.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli import evaluation, splits
from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import NUM_GRADES, decide, softmax
from dr_cli.runs import MODEL, Run

if TYPE_CHECKING:
    import pandas as pd


def facts(run: Run) -> dict[str, Any]:
    """The metadata of the run's weights, without reading the weights."""
    from safetensors import safe_open

    with safe_open(run[MODEL], "pt") as file:
        return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}


def chosen_on_validation(run: Run) -> dict[str, Any]:
    """Temperature and operating point, as `evaluation.evaluate` takes them."""
    model = facts(run)
    point = model.get("operating_point")
    if point is not None:
        point = {**point, "from": f"val of {run.name}"}
    return {"temperature": model["temperature"], "operating": point}


def of_run(run: Run, split: str, **options: Any) -> dict[str, Any]:
    """The record of a split ("train" has none; "all" pools) from the run's prediction files."""
    import pandas as pd

    table = run.splits()
    config = run.read_json("config.json")
    wanted = [s for s in ("val", "test") if run.has(s)] if split == "all" else [split]
    predictions = pd.concat([run.predictions(s) for s in wanted], ignore_index=True)
    return evaluation.evaluate(
        predictions,
        run=run.name,
        data=config["data"]["root"],
        split=split,
        **baselines_of(table, split, config["options"]["val"] == "test"),
        **chosen_on_validation(run),
        **options,
    )


def on_data(
    run: Run,
    data: Path,
    split: str | None,
    *,
    layout: str = "auto",
    columns: Mapping[str, str | None] | None = None,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    batch_size: int = 16,
    observer: Observer = NOTHING,
    **options: Any,
) -> dict[str, Any]:
    """The record of the run's network on graded photographs, decoded and graded now.

    On the run's own data (the same fingerprint) the splits are the run's; elsewhere those that
    the data brings, and where it brings none, all of it. Raises UsageError for an empty split.
    """
    from dr_cli import labels
    from dr_cli.dataset import FundusDataset, batches
    from dr_cli.device import choose
    from dr_cli.grader import Member, logits_of

    read = labels.read(
        data, layout=layout, columns=labels.Columns(**(columns or {})), observer=observer
    )
    made = run.read_json("config.json")
    own = labels.fingerprint(read.table) == made["data"]["fingerprint"]
    table = run.splits() if own else read.table
    present = list(table["split"].dropna().unique())
    split = split or next((s for s in ("test", "val") if s in present), "all")
    rows = table[table["reason"].isna() & ((split == "all") | (table["split"] == split))]
    rows = rows.reset_index(drop=True)
    if rows.empty:
        raise UsageError(
            f"{data} has no {split} split (it has {', '.join(present) or 'no splits'}): "
            "--split all takes every photograph"
        )
    member = Member(run.folder, choose(device, precision))
    dataset = FundusDataset(
        read.root, rows["path"], rows["grade"], member.preprocessing, observer=observer,
        workers=workers,
    )  # fmt: skip
    failed = {path for path, _ in dataset.failed}
    for path, reason in dataset.failed:
        observer.warning(f"{path}: {reason}")
    good = (~rows["path"].isin(failed)).to_numpy().nonzero()[0]
    logits = logits_of(
        member.network,
        batches(dataset, good, batch_size),
        member.processor,
        lambda done: observer.progress("photographs graded", done, len(good)),
    )
    missing = int((table["reason"].fillna("").str.startswith("image missing")).sum())
    return evaluation.evaluate(
        predictions(rows.iloc[good], logits, member.decision, member.temperature),
        run=run.name,
        data=str(data),
        split=split,
        failed=len(failed) + (0 if own else missing),
        **baselines_of(table, split),
        **chosen_on_validation(run),
        **options,
    )


def predictions(
    rows: "pd.DataFrame",
    logits: NDArray[np.float32],
    decision: Mapping[str, Any],
    temperature: float,
) -> "pd.DataFrame":
    """Rows (path, grade, patient, eye) with p0–p4 and predicted: a predictions file.

    Probabilities are rounded before the decision, so whoever reads the file decides the same.
    """
    table = rows.reset_index(drop=True)
    probabilities = softmax(logits / temperature).round(6)
    for grade in range(NUM_GRADES):
        table[f"p{grade}"] = probabilities[:, grade]
    table["predicted"] = decide(probabilities, decision)
    return table


def baselines_of(table: "pd.DataFrame", split: str, val_is_test: bool = False) -> dict[str, Any]:
    """The baselines of a split and what `evaluate` says of its leaks and its independence."""
    where = "test" if split == "val" and val_is_test else split
    usable = table[table["reason"].isna()]
    warnings = []
    if val_is_test:
        warnings.append(
            "the epoch was picked on the test set (--val test): these figures are optimistic"
        )
    found = splits.baselines(usable, where) if where in ("val", "test") else None
    return {"baselines": found, "warnings": warnings}
