"""Two or more runs on the same images: is the difference more than chance?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln  # type: ignore[import-untyped]

from dr_cli.errors import UsageError
from dr_cli.grades import OperatingPoint
from dr_cli.scoring import flips, influence, intervals, metrics
from dr_cli.scoring.metrics import Floats
from dr_cli.scoring.predictions import Answers, Sample, Target, check

if TYPE_CHECKING:
    import pandas as pd


def compare(
    runs: "Sequence[tuple[str, pd.DataFrame]]",
    points: Sequence[OperatingPoint | None] = (),
    *,
    bootstrap: int = intervals.REPLICATES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Every pair of runs, as plain dictionaries:

        a, b, n, patients,
        qwk, referable_auc   {"a", "b", "difference" (a - b), "ci95", "p", ...}
        mcnemar_referable, mcnemar_grade
                             {"a_only", "b_only", "p", ...}: images that one alone got right

    and in each of the four, beside p, `p_adjusted`, corrected for the number of pairs by what they
    have in common (`flips.adjust`), and `p_holm`, corrected for their number alone.

    runs: (name, prediction table), matched by `path` (and `split`, where there is one).
    points: what was chosen on the validation images of each (0.5 without). Differences are tested
    by the signs of the patients' shares (`flips`), the last by `mcnemar`. bootstrap: how many sets
    of signs the pairs are corrected by; 0 leaves out intervals and p of the differences, and
    corrects by Holm alone. What a table cannot tell is None.

    Raises UsageError where the tables do not hold the same images with the same grades, where
    a name stands there twice, or with fewer than two runs.
    """
    names = [name for name, _ in runs]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"a comparison takes two or more different runs, not {names}")
    tables = _align(runs)
    each = zip(tables, points or [None] * len(runs), strict=True)
    samples = [Sample.from_table(table, point) for table, point in each]
    numbers = list(combinations(range(len(runs)), 2))
    shared = samples[0]  # the same images, so the same patients
    pairs: list[dict[str, Any]] = [
        {"a": names[i], "b": names[j], "n": len(tables[0]), "patients": shared.patients}
        for i, j in numbers
    ]
    for test, share_out in TESTS.items():
        parts = [share_out(sample) for sample in samples]
        for pair, (i, j) in zip(pairs, numbers, strict=True):
            pair[test] = _tell(test, samples[i], samples[j], parts[i], parts[j], bootstrap > 0)
        _correct([pair[test] for pair in pairs], numbers, parts, bootstrap, seed)
    return pairs


def mcnemar(
    a_right: NDArray[np.bool_], b_right: NDArray[np.bool_], unit: NDArray[np.int64]
) -> dict[str, Any]:
    """Do two runs get equally many of the same images right? Exact, with the mid-p.

    a_right, b_right [N] bool, unit [N] the patient -> {"a_only", "b_only", "p"}. If the runs
    are alike, either could have been the other on any patient, so the patient's surplus (images
    that a alone got right, less those that b alone did) is as likely with the other sign. p is
    the chance of a larger sum of surpluses by such signs, and half that of an equal one. With
    an image a patient that is McNemar's exact conditional test with the mid-p (Fagerland,
    Lydersen & Laake, BMC Medical Research Methodology 2013, 13:91); fellow eyes, which would
    make it too sure, are handled as in Obuchowski's test (Statistics in Medicine 1998,
    17(13):1495-1507), but without its normal approximation.
    """
    a_only, b_only = a_right & ~b_right, b_right & ~a_right
    surplus = np.bincount(unit, a_only.astype(int) - b_only.astype(int)).astype(np.int64)
    return {
        "a_only": int(a_only.sum()),
        "b_only": int(b_only.sum()),
        "p": mcnemar_of(surplus),
    }


def mcnemar_of(surplus: NDArray[np.int64]) -> float:
    """p of `mcnemar`, of each patient's surplus [units]."""
    if not surplus.any():
        return 1.0
    chance = _signed_sums(np.abs(surplus))
    reached, most = abs(int(surplus.sum())), (len(chance) - 1) // 2
    distance = np.abs(np.arange(-most, most + 1))
    p = chance[distance > reached].sum() + chance[distance == reached].sum() / 2
    return min(float(p), 1.0)


def _signed_sums(sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Chances of each sum of +-sizes, all signs equally likely: [2 S + 1] for -S to S."""
    chance = np.ones(1)
    for size, units in zip(*np.unique(sizes[sizes > 0], return_counts=True), strict=True):
        ups = np.arange(units + 1)  # binomial: how many of the units have the plus sign
        log_ways = gammaln(units + 1) - gammaln(ups + 1) - gammaln(units - ups + 1)
        steps = np.zeros(2 * size * units + 1)
        steps[:: 2 * size] = np.exp(log_ways - units * np.log(2))
        chance = np.convolve(chance, steps)
    return chance


def _align(runs: "Sequence[tuple[str, pd.DataFrame]]") -> "list[pd.DataFrame]":
    """The tables in one order of images, all with the patients that any of them knows."""
    for name, table in runs:
        check(table, name)
    key = ["split", "path"] if all("split" in table for _, table in runs) else ["path"]
    tables = [table.sort_values(key, ignore_index=True) for _, table in runs]
    (first_name, _), first = runs[0], tables[0]
    for (name, _), table in zip(runs[1:], tables[1:], strict=True):
        lacking = set(first["path"]) ^ set(table["path"])
        if lacking or not first[key].equals(table[key]):
            example = min(lacking) if lacking else "the same image in another split"
            raise UsageError(
                f"{first_name} and {name} are not about the same images: {len(lacking):,} stand "
                f"in one of them only, such as {example}"
            )
        differs = _truth(first, table) != _truth(table, first)
        if differs.any():
            raise UsageError(
                f"{first_name} and {name} take {int(differs.sum()):,} images for another true "
                f"grade, such as {first['path'][differs.argmax()]}"
            )
    knowing = [t["patient"] for t in tables if "patient" in t and t["patient"].notna().any()]
    return [table.assign(patient=knowing[0]) if knowing else table for table in tables]


def _truth(table: "pd.DataFrame", other: "pd.DataFrame") -> NDArray[Any]:
    """The true grade [N], or, where either table knows no more, referable or not."""
    if "grade" in table and "grade" in other:
        return table["grade"].to_numpy(np.int64)
    return Target.from_table(table, "referable").truth


# --- what a run brings to a test: the figure, and what each patient has of it


@dataclass(frozen=True)
class Part:
    value: float
    shares: Floats | None  # [units], which sum to the value; None where a class is too rare


def _share_kappa(sample: Sample) -> Part | None:
    if not sample.graded:
        return None
    said = sample.graded
    figure = metrics.quadratic_weighted_kappa_of
    moved = influence.of_counts(figure, said.truth, said.said, said.kinds, sample.unit)
    return _part(float(figure(said.counts)), moved)


def _share_area(sample: Sample) -> Part | None:
    target = sample.targets["referable"]
    if target.score is None:
        return None
    moved = influence.of_area(target.truth, target.score, sample.unit)
    return _part(metrics.auc(target.truth, target.score), moved)


def _share_referable(sample: Sample) -> Part | None:
    return _count_right(sample.targets["referable"], sample.unit)


def _share_graded(sample: Sample) -> Part | None:
    return _count_right(sample.graded, sample.unit) if sample.graded else None


def _count_right(answers: Answers, unit: NDArray[np.int64]) -> Part:
    return Part(float(answers.right.sum()), np.bincount(unit, answers.right).astype(np.float64))


def _part(value: float, moved: Floats | None) -> Part | None:
    if np.isnan(value):
        return None
    told = moved is not None and not np.isnan(moved).any()
    return Part(value, value / len(moved) + moved if told and moved is not None else None)


TESTS: Mapping[str, Callable[[Sample], Part | None]] = {
    "qwk": _share_kappa,
    "referable_auc": _share_area,
    "mcnemar_referable": _share_referable,
    "mcnemar_grade": _share_graded,
}


def _tell(
    test: str, a: Sample, b: Sample, ours: Part | None, theirs: Part | None, tested: bool
) -> dict[str, Any] | None:
    """What a pair's record says of a test; None where either table does not tell the figure."""
    if ours is None or theirs is None:
        return None
    if test == "mcnemar_referable":
        return mcnemar(a.targets["referable"].right, b.targets["referable"].right, a.unit)
    if test == "mcnemar_grade" and a.graded and b.graded:
        return mcnemar(a.graded.right, b.graded.right, a.unit)
    shares = None
    if tested and ours.shares is not None and theirs.shares is not None:
        shares = ours.shares - theirs.shares
    return {
        "a": ours.value,
        "b": theirs.value,
        "difference": ours.value - theirs.value,
        "ci95": None if shares is None else flips.interval(shares),
        "p": None if shares is None else flips.p_value(shares),
    }


def _correct(
    told: Sequence[dict[str, Any] | None],
    numbers: Sequence[tuple[int, int]],
    parts: Sequence[Part | None],
    bootstrap: int,
    seed: int,
) -> None:
    """Adds p_adjusted and p_holm to what the pairs say of one test."""
    p: list[float | None] = [None if one is None else one["p"] for one in told]
    whole = next((part.shares for part in parts if part and part.shares is not None), np.zeros(0))
    shares = np.stack(
        [part.shares if part and part.shares is not None else 0 * whole for part in parts]
    )
    adjusted = flips.adjust(p, np.array(numbers), shares, bootstrap, seed)
    for one, joint, alone in zip(told, adjusted, flips.holm(p), strict=True):
        if one is not None:
            one |= {"p_adjusted": joint, "p_holm": alone}
