"""A run's predictions and what was chosen on its validation images -> the record reported.

`trainer` (for summary.json), `dr eval` and `dr report` all come here, so they agree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import DECISIONS, UNTRIED, Calibration, name_decision
from dr_cli.labels.layouts import SPLITS
from dr_cli.ranks import Ranks
from dr_cli.runs import Run
from dr_cli.sample.mark import is_drawn
from dr_cli.scoring import calibration, overlap
from dr_cli.scoring.baselines import (
    doubt_validation,
    find_leaks,
    predict_baselines,
    read_doubles,
    score_copies,
)
from dr_cli.scoring.both_eyes import join_rows
from dr_cli.scoring.comparison import compare
from dr_cli.scoring.evaluation import Evaluation
from dr_cli.scoring.flow import count_failed, describe_flow
from dr_cli.scoring.intervals import REPLICATES
from dr_cli.scoring.predictions import (
    OWN_THRESHOLDS,
    PROBABILITIES,
    find_threshold,
    read_checked,
)
from dr_cli.scoring.reading import read_predictions
from dr_cli.scoring.record import USUAL, Context, Record, Scoring, build_record
from dr_cli.scoring.screening import PREVALENCES

if TYPE_CHECKING:
    import pandas as pd

    from dr_cli.labels.reading import Labels
    from dr_cli.network.grader import Grader

OPTIMISTIC = {  # why the figures of a split are
    "train": "the network learned from these images",
    "val": "epoch, temperature and thresholds were chosen on these validation images",
    "test": "epoch, temperature and thresholds were chosen on these test images (--val test)",
    "all": "the network learned from some of these images, or was chosen on them",
}
DRAWN_EYES = "these eyes are drawn by a program: the figures say nothing about photographs"
DRAWN_ALONE = "the network has seen drawn eyes alone, never a photograph as these are"


@dataclass(frozen=True)
class Rules:
    """How probabilities become grades and alarms; None is what the run itself chose.

    decision: one of `grades.DECISIONS`; operating_point: a rule of `calibration.parse_rule`. What
    has to be chosen anew is chosen on the run's validation predictions. threshold: of referable,
    in [0, 1]; or a table of predictions to choose thresholds on in place of validation.
    """

    decision: str | None = None
    operating_point: str | None = None
    threshold: float | Path | None = None

    def __post_init__(self) -> None:
        if self.decision is not None:
            object.__setattr__(self, "decision", name_decision(self.decision))


def evaluate(
    run: Run | str | Path,
    data: str | Path | None = None,
    split: str | None = None,
    *,
    rules: Rules = Rules(),
    bootstrap: int = REPLICATES,
    seed: int = 0,
    by: str | None = None,
    prevalences: tuple[float, ...] = PREVALENCES,
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

    Without data the prediction files of the run are scored; all after `prevalences` is about
    data alone. split: "val", "test" or "all", with data "train", too; by default test, else val,
    else all. bootstrap: replicates of the 95% intervals over patients; 0 gives none. by: a column
    of the labels to give the figures by, too. prevalences: shares of people, in ]0, 1[, in which
    predictive values are told. columns: the names of a table's columns, by "image", "grade",
    "patient", "split", and "grade_map"; the run's own data are read as it read
    them. tta: the mean over eight views.

    The record is a dict that goes into JSON as it is, and that a notebook shows as tables; README
    names its fields. Started by torchrun, each process grades a share of data's photographs, and
    all know the whole record. Rates, AUC, ECE and probabilities
    are in [0, 1], kappa in [-1, 1], mean_absolute_error in grades, nll in nats. Raises UsageError
    where run is not finished, has no such split or column, or data cannot be scored.
    """
    run = run if isinstance(run, Run) else Run(Path(run))
    scoring = Scoring(bootstrap, seed, by, prevalences)
    if data is None:
        return Evaluation(evaluate_run(run, choose_split(run, split), rules, scoring))
    from dr_cli.network.grader import Grader

    data, chosen = Path(data), recalibrate(run, rules)
    grader = Grader.load(run.folder, device=device, precision=precision, engine="torch")
    ranks = Ranks.of_environment()
    with ranks.joined(grader.processor.device):
        read = ranks.in_turn(lambda: _read_data(run, data, layout, columns or {}, observer))
        rows, context = ranks.in_turn(
            lambda: _choose_rows(run, read, split, data, workers, observer)
        )
        seen, probabilities = _grade_rows(
            grader, read, rows, workers, batch_size, tta, ranks, observer
        )
    failed, untried = context.failed + len(rows) - len(seen), [UNTRIED] if tta else []
    heard = replace(chosen, fellow=None)  # probabilities are of eyes that heard each other
    decisions = _decide_each(
        run, lambda rules, one: tabulate(seen, probabilities, replace(one, fellow=None))
    )
    context = replace(
        context, failed=failed, decisions=decisions, warnings=(*context.warnings, *untried)
    )
    return Evaluation(build_record(tabulate(seen, probabilities, heard), context, chosen, scoring))


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


def evaluate_run(run: Run, split: str, rules: Rules = Rules(), scoring: Scoring = USUAL) -> Record:
    """The record of "val", "test" or "all" of a run, from its prediction files."""
    chosen, labels = recalibrate(run, rules), run.splits()
    table = _gather_predictions(run, split, chosen, rules)
    if scoring.by is not None and scoring.by not in table:  # camera, site, …: the labels may know
        further = [c for c in labels if c == "path" or c not in table]
        table = table.merge(labels[further].drop_duplicates("path"), on="path", how="left")
    context = replace(
        _describe(run, split, labels),
        folded="fold" in table and bool(_folds(run)),
        decisions=_decide_each(run, lambda rules, one: _gather_predictions(run, split, one, rules)),
    )
    if seeds := [Run(folder) for folder in run.seeds()]:
        context = _tell_seeds(context, seeds, split, rules)
    return build_record(table, context, chosen, scoring)


def compare_runs(
    runs: Sequence[Run],
    split: str,
    rules: Rules = Rules(),
    bootstrap: int = REPLICATES,
    names: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Every pair of two or more finished runs on the same images, see `compare`.

    rules hold for each of them; what has to be chosen anew is chosen on its own validation.
    names: what a pair calls them, by default their folders.
    """
    names = names or [str(run.folder) for run in runs]
    chosen = [recalibrate(run, rules) for run in runs]
    tables = [
        _gather_predictions(run, choose_split(run, split), one, rules)
        for run, one in zip(runs, chosen, strict=True)
    ]
    points = [one.operating_point for one in chosen]
    return compare(list(zip(names, tables, strict=True)), points, bootstrap=bootstrap)


def recalibrate(run: Run, rules: Rules = Rules()) -> Calibration:
    """The run's own calibration, with what `rules` ask for chosen anew on its validation.

    Of a cross-validation the mean of its folds', each chosen on its own validation: for new
    photographs. Its held-out images are decided each by its own fold (`_gather_predictions`).
    """
    if folds := _folds(run):
        mean = Calibration.pooled([recalibrate(fold, rules) for fold in folds])
        point = mean.operating_point
        if point is not None:
            source = f"val of each fold of {run.name}, for the images it held out; here the mean"
            point = replace(point, source=source, data=run.config().data.root)
        return replace(mean, temperature=None, operating_point=point)
    chosen = run.calibration()
    if rules.decision == "argmax":
        chosen = replace(chosen, cuts=None)
    elif rules.decision not in (None, chosen.decision):
        validation = _read_validation(run, f"--decision {rules.decision}")
        chosen = calibration.choose_cuts(chosen, *validation, rules.decision)
    point = chosen.operating_point
    if rules.operating_point is not None and not isinstance(rules.threshold, Path):
        validation = _read_validation(run, "--operating-point")
        point = calibration.choose_operating_point(*validation, rules.operating_point)
    if point is not None:
        config = run.config()
        source = f"{'test' if config.picked_on_test else 'val'} of {run.name}"
        point = replace(point, source=source, data=config.data.root)
    if isinstance(rules.threshold, Path):
        theirs = read_predictions(rules.threshold)
        point = calibration.choose_on(theirs.table, theirs.name, rules.operating_point)
    elif rules.threshold is not None:
        point = calibration.give_threshold(rules.threshold, point)
    return replace(chosen, operating_point=point)


def tabulate(
    rows: "pd.DataFrame", probabilities: NDArray[np.float64], calibration: Calibration
) -> "pd.DataFrame":
    """Rows (path, grade, patient, eye) with p0–p4 ([N, 5]) and predicted: a predictions file.

    With --both-eyes each eye hears its fellow, where that is among the rows. Probabilities are
    rounded before the decision, so whoever reads the file decides the same.
    """
    probabilities = join_rows(rows, probabilities, calibration.fellow).round(6)
    table = rows.reset_index(drop=True)
    table[PROBABILITIES] = probabilities
    table["predicted"] = calibration.decide(probabilities)
    return table


def _gather_predictions(run: Run, split: str, chosen: Calibration, rules: Rules) -> "pd.DataFrame":
    """The run's prediction file of a split ("all": of validation and test), as `chosen` decides.

    Of a cross-validation those of its folds, with the column `fold`, each as that fold's own
    calibration decides: the mean of their thresholds was chosen on the other folds' validation,
    in which these very images stand.
    """
    import pandas as pd

    if folds := _folds(run):
        parts = [_decide_fold(fold, recalibrate(fold, rules)) for fold in folds]
        return pd.concat(parts, ignore_index=True).assign(
            fold=np.repeat(np.arange(1, len(parts) + 1), [len(part) for part in parts])
        )
    wanted = [s for s in ("val", "test") if run.has(s)] if split == "all" else [split]
    if split == "all" and run.config().picked_on_test:  # then the two are the same images
        wanted = ["test"]
    table = pd.concat([read_checked(run, s) for s in wanted], ignore_index=True)
    if chosen.cuts != run.calibration().cuts:
        table["predicted"] = chosen.decide(table[PROBABILITIES].to_numpy())
    return table


def _decide_each(
    run: Run, decide: Callable[[Rules, Calibration], "pd.DataFrame"]
) -> "dict[str, pd.DataFrame]":
    """The same images by each of DECISIONS; none where there is no validation to choose on."""
    can = DECISIONS if all(one.has("val") for one in _folds(run) or [run]) else ()
    return {name: decide(rules, recalibrate(run, rules)) for name in can for rules in [Rules(name)]}


def _decide_fold(fold: Run, chosen: Calibration) -> "pd.DataFrame":
    """The images that a fold held out, called by what was chosen on its validation."""
    table = _gather_predictions(fold, "test", chosen, Rules())
    for name, column in OWN_THRESHOLDS.items():
        if threshold := find_threshold(chosen.operating_point, name):
            table[column] = threshold.value
    return table


def _folds(run: Run) -> list[Run]:
    """The runs of a cross-validation whose predictions are still there; none of another run."""
    folds = [Run(folder) for folder in run.folds()]
    return folds if all(fold.has("test") for fold in folds) else []


def _tell_seeds(context: Context, seeds: Sequence[Run], split: str, rules: Rules) -> Context:
    """The context, with what each seed's network says by itself, and that the figures are of
    their mean."""
    chosen = [recalibrate(seed, rules) for seed in seeds]
    told = {
        seed.config().options["seed"]: (_gather_predictions(seed, split, one, rules), one)
        for seed, one in zip(seeds, chosen, strict=True)
    }
    text = (
        f"figures are of the mean probabilities of {len(seeds)} seeds' networks; what one network "
        "reaches stands in `seeds`, mean and standard deviation"
    )
    return replace(context, seeds=told, warnings=(*context.warnings, text))


def _read_validation(run: Run, flag: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Grades [N] and probabilities [N, 5] of the run's validation images."""
    if not run.has("val"):
        raise UsageError(f"{flag} is chosen on validation predictions: {run.folder} has none")
    table = read_checked(run, "val")
    return table["grade"].to_numpy(), table[PROBABILITIES].to_numpy()


def _read_data(
    run: Run, data: Path, layout: str, columns: Mapping[str, str | None], observer: Observer
) -> "Labels":
    """Its labels; the folder, or the table, that the run was trained on is read as it was then."""
    from dr_cli.labels import reading
    from dr_cli.labels.columns import Columns

    said, made = Columns(**columns), run.config().data
    own = str(data.expanduser().resolve()) in (made.source, made.root)
    if own and layout == "auto" and not said.to_record():
        layout, said = made.layout, Columns(**made.columns)
    return reading.read(data, layout=layout, columns=said, observer=observer)


def _grade_rows(
    grader: "Grader",
    read: "Labels",
    rows: "pd.DataFrame",
    workers: int | None,
    batch_size: int | None,
    tta: bool,
    ranks: Ranks,
    observer: Observer,
) -> tuple["pd.DataFrame", NDArray[np.float64]]:
    """The rows whose photographs can be read, with `gradable`, and their probabilities [N, 5]:
    with --both-eyes of eyes that heard each other, by each network apart, as in the prediction
    files of several. Each process grades its share of them."""
    from dr_cli.dataset.dataset import FundusDataset
    from dr_cli.dataset.feeding import batches

    paths, grades, way = rows["path"], rows["grade"], grader.preprocessing
    dataset = ranks.in_turn(
        lambda: FundusDataset(read.root, paths, grades, way, observer=observer, workers=workers)
    )
    ranks.agree(rows[["path", "grade"]])
    for reasons in ranks.gather(dataset.reasons):
        dataset.hear_failed(reasons)
    good = ranks.share(dataset.readable)
    own = grader.probabilities_of_each(
        batches(dataset, good, batch_size or grader.processor.inference_batch),
        lambda done: observer.progress("photographs graded", done, len(good)),
        tta,
    )
    ranks.wait()  # of hours of grading the shares may end minutes apart
    found = ranks.gather((own, dataset.reasons))
    for _, reasons in found:
        dataset.hear_failed(reasons)
    each = np.concatenate([part for part, _ in found], axis=1)  # [members, N, 5]
    for path, reason in dataset.failed:
        observer.warning(f"{path}: {reason}")
    seen = dataset.mark_gradable(rows).iloc[dataset.readable]
    rules = [member.calibration.fellow for member in grader.members]
    heard = [join_rows(seen, one, rule) for one, rule in zip(each, rules, strict=True)]
    return seen, np.mean(heard, axis=0)


def _choose_rows(
    run: Run, read: "Labels", split: str | None, data: Path, workers: int | None, observer: Observer
) -> tuple["pd.DataFrame", Context]:
    """The usable rows of a split (default: test, else val, else all), and what is known of them.

    On the run's own photographs the splits are the run's, whatever became of the labels; elsewhere
    those that the data brings, and where it brings none, all of it, without what the run has seen
    (`overlap.leave_out_seen`). Raises UsageError where nothing is left.
    """
    from dr_cli.labels.reading import need_images
    from dr_cli.photographs import duplicates

    need_images(read)
    labels, differ = overlap.join_splits(run, read) or (read.table, None)
    present, keep = list(labels["split"].dropna().unique()), split in ("train", "all")
    split = split or next((s for s in ("test", "val") if s in present), "all")
    asked = (labels["split"] == split) | (split == "all")
    rows = labels[labels["reason"].isna() & asked].reset_index(drop=True)
    if rows.empty:
        raise UsageError(
            f"{data} has no {split} split (it has {', '.join(present) or 'none at all'}): "
            "--split all takes every photograph"
        )
    context = Context(run.name, str(data), split)
    if is_drawn(data):
        context = replace(context, warnings=(DRAWN_EYES,))
    elif run.config().data.drawn:
        context = replace(context, warnings=(DRAWN_ALONE,))
    if differ is not None:
        context = _describe(run, split, labels, again=True)
        seen, told = overlap.recall(run, rows, differ, keep)
        return rows, replace(context, seen=seen, warnings=(*context.warnings, *told))

    def look() -> NDArray[np.void]:
        paths = rows["path"].tolist()
        return duplicates.look(read.root, paths, workers=workers, observer=observer)

    found = overlap.leave_out_seen(run, read, rows, keep, look)
    failed = count_failed(labels, SPLITS if split == "all" else [split])
    left = found.mark(labels)
    return found.rows, replace(
        context,
        failed=failed,
        leaks=found.leaks,
        leaking=found.leaking,
        seen=found.seen,
        flow=describe_flow(left),
        warnings=(*context.warnings, *found.warnings),
    )


def _copy(run: Run, usable: "pd.DataFrame", judged: str) -> "pd.DataFrame":
    """What the baselines say of a split; of a cross-validation what each fold's, with the train
    split of its own, say of the images that it held out."""
    import pandas as pd

    folds = [fold.splits() for fold in _folds(run)]
    if not folds:
        return predict_baselines(usable, judged)
    return pd.concat([predict_baselines(s[s["reason"].isna()], "test") for s in folds])


def _describe(run: Run, split: str, labels: "pd.DataFrame", again: bool = False) -> Context:
    """What stands beside the figures of a run's split: baselines, leaks, warnings.

    labels: the run's splits.csv. again: its networks look at the images now; those of a
    cross-validation were each trained on most of them.
    """
    config = run.config()
    baselines = copies = leaks = leaking = None
    optimistic: list[str] = []
    judged, doubt = split, None
    if split in ("val", "test"):
        usable = labels[labels["reason"].isna()]
        judged = "test" if config.picked_on_test else split
        copies = _copy(run, usable, judged)
        baselines = score_copies(copies)
        found = find_leaks(usable, read_doubles(usable), judged)
        leaks, paths = found.count(), usable["path"][usable["split"] == judged]
        leaking = frozenset(paths[found.any])
        doubt = doubt_validation(usable)
        if config.picked_on_test or split == "val":
            optimistic = [judged]
    elif split == "all" and config.picked_on_test and not again:
        optimistic = ["test"]
    elif split == "train" or run.has("val"):
        optimistic = [split]
    if again and run.folds() and "all" not in optimistic:
        optimistic.append("all")
    warnings = [f"{OPTIMISTIC[why]}: these figures are optimistic" for why in optimistic]
    if started := (config.start or {}).get(judged):
        warnings.append(
            f"the run that --weights names was trained or chosen on {started:,} of these images: "
            "these figures are optimistic"
        )
    warnings += [doubt] if doubt else []
    warnings += [DRAWN_EYES] if config.data.drawn else []
    asked = SPLITS if again else [s for s in ("val", "test") if run.has(s)]
    return Context(
        run.name,
        config.data.root,
        split,
        failed=count_failed(labels, asked if split == "all" else [judged]),
        baselines=baselines,
        copies=copies,
        leaks=leaks,
        leaking=leaking,
        flow=describe_flow(labels),
        warnings=tuple(warnings),
    )
