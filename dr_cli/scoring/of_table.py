"""Anybody's prediction table and what decides alarms in it -> the record reported."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import Calibration, OperatingPoint
from dr_cli.scoring.calibration import choose_on, give_threshold
from dr_cli.scoring.predictions import GRADE_ALONE, find_told
from dr_cli.scoring.reading import Theirs, read_predictions
from dr_cli.scoring.record import USUAL, Context, Record, Scoring, build_record

if TYPE_CHECKING:
    import pandas as pd

Columns = Mapping[str, str | None]


def evaluate_table(
    source: str | Path,
    split: str | None = None,
    *,
    labels: Path | None = None,
    layout: str = "auto",
    columns: Columns | None = None,
    threshold: float | Path | None = None,
    rule: str | None = None,
    scoring: Scoring = USUAL,
    observer: Observer = NOTHING,
) -> Record:
    """What `dr eval --predictions SOURCE` prints: see `read_predictions` for what it may hold.

    labels: a table or folder that the true grades are in, read as `dr train` reads one (layout,
    columns). threshold: from which P(referable) on an image is an alarm, in [0, 1]; or a table of
    predictions on which `rule` chooses it. Without, it is chosen on the rows of split val where
    another split is scored; else 0.5.
    """
    from dr_cli.labels import columns as label_columns
    from dr_cli.labels import reading

    given = {name: value for name, value in (columns or {}).items() if value}
    truth = None
    if labels is not None:
        named = label_columns.Columns(**given)
        truth = reading.read(labels, layout=layout, columns=named, observer=observer)
    read = read_predictions(source, truth, given)
    rows = read.take(split)
    warnings = read.warnings
    point: OperatingPoint | None
    if isinstance(threshold, Path):
        second = read_predictions(threshold, truth, given)
        point = choose_on(second.table, second.name, rule)
        warnings += doubt_threshold(second, rows)
    elif threshold is not None:
        if find_told(rows) == GRADE_ALONE:
            raise UsageError(
                f"--threshold does nothing here: {read.name} has no probability to cut"
            )
        point = give_threshold(threshold, None)
    else:
        point = _choose_on_val(read, split, rule)
    context = Context(None, read.name, split or "all", read.failed, warnings=warnings)
    return build_record(rows, context, Calibration(None, None, point), scoring)


def doubt_threshold(second: Theirs, rows: "pd.DataFrame") -> tuple[str, ...]:
    """What must be said where the threshold was chosen on images that are scored."""
    both = int(rows["path"].isin(second.table["path"]).sum())
    if not both:
        return ()
    return (
        f"{both:,} of these {len(rows):,} images stand in {second.name}, too, where the threshold "
        "was chosen: sensitivity and specificity are optimistic",
    )


def _choose_on_val(read: Theirs, split: str | None, rule: str | None) -> OperatingPoint | None:
    """Chosen on the table's own validation rows, where those are not among the scored ones."""
    there = "split" in read.table and (read.table["split"] == "val").any()
    if not there or split in (None, "all", "val"):
        if rule is not None:
            raise UsageError(
                "--operating-point is chosen on validation predictions: name them by --threshold "
                "TABLE, or score --split test of a table that has rows of split val"
            )
        return None
    val = read.take("val")
    if rule is None and find_told(val) == GRADE_ALONE:
        return None
    return choose_on(val, f"val of {read.name}", rule)
