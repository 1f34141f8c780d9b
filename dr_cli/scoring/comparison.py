"""Two or more runs on the same images: is the difference more than chance?"""

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln  # type: ignore[import-untyped]

from dr_cli.errors import UsageError
from dr_cli.grades import OperatingPoint
from dr_cli.scoring import intervals, metrics
from dr_cli.scoring.metrics import Floats
from dr_cli.scoring.predictions import Sample, Target, check

if TYPE_CHECKING:
    import pandas as pd

TESTS = ("qwk", "referable_auc", "mcnemar_referable", "mcnemar_grade")


def compare(
    runs: "Sequence[tuple[str, pd.DataFrame]]",
    points: Sequence[OperatingPoint | None] = (),
    *,
    bootstrap: int = intervals.REPLICATES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Every pair of runs, as plain dictionaries:

        a, b, n, patients,
        qwk, referable_auc   {"a", "b", "difference" (a - b), "ci95", "p", "p_holm"}
        mcnemar_referable, mcnemar_grade
                             {"a_only", "b_only", "p", "p_holm"}: images that one alone got right

    runs: (name, prediction table), matched by `path` (and `split`, where there is one).
    points: what was chosen on the validation images of each (0.5 without). The differences have
    paired intervals: both runs meet the same patients in each of `bootstrap` replicates. McNemar's
    test is `mcnemar`. `p_holm` is p corrected for the number of pairs, within each of the four
    tests. What a table cannot tell is None.

    Raises UsageError where the tables do not hold the same images with the same grades, where
    a name stands there twice, or with fewer than two runs.
    """
    names = [name for name, _ in runs]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UsageError(f"a comparison takes two or more different runs, not {names}")
    tables = _align(runs)
    each = zip(tables, points or [None] * len(runs), strict=True)
    samples = [Sample.from_table(table, point) for table, point in each]
    shared = samples[0]  # the same images, so the same patients
    statistics = {
        f"{i} {figure}": statistic
        for i, sample in enumerate(samples)
        for figure, statistic in _prepare_statistics(sample).items()
    }
    found = intervals.measure(statistics, shared.units, bootstrap, seed)
    truth = shared.targets["referable"].truth
    rarer = min(shared.units_with(truth), shared.units_with(~truth))
    resting_on = {"qwk": shared.units, "referable_auc": rarer}
    pairs: list[dict[str, Any]] = []
    for i, j in combinations(range(len(runs)), 2):
        a, b = samples[i], samples[j]
        pair = {"a": names[i], "b": names[j], "n": len(tables[0]), "patients": shared.patients}
        for figure, units in resting_on.items():
            pair[figure] = _subtract(found.get(f"{i} {figure}"), found.get(f"{j} {figure}"), units)
        pair["mcnemar_referable"] = mcnemar(
            a.targets["referable"].right, b.targets["referable"].right, shared.unit
        )
        pair["mcnemar_grade"] = (
            a.graded and b.graded and mcnemar(a.graded.right, b.graded.right, shared.unit)
        )
        pairs.append(pair)
    for test in TESTS:
        tested = [pair[test] for pair in pairs if pair[test] is not None]
        for result, corrected in zip(tested, holm([r["p"] for r in tested]), strict=True):
            result["p_holm"] = corrected
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
    chance = _signed_sums(np.abs(surplus))
    reached, most = abs(int(surplus.sum())), (len(chance) - 1) // 2
    distance = np.abs(np.arange(-most, most + 1))
    p = chance[distance > reached].sum() + chance[distance == reached].sum() / 2
    if not surplus.any():
        p = 1.0
    return {"a_only": int(a_only.sum()), "b_only": int(b_only.sum()), "p": min(float(p), 1.0)}


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


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number (Holm, Scandinavian Journal of Statistics 1979,
    6(2):65-70): the k-th smallest of m times m - k + 1, never less than one before it.

    A None stays None and is no comparison.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        corrected[i] = largest
    return corrected


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


def _prepare_statistics(sample: Sample) -> dict[str, metrics.Statistic]:
    target = sample.targets["referable"]
    found: dict[str, metrics.Statistic] = {}
    if target.score is not None:
        found["referable_auc"] = metrics.weigh_roc_area(target.truth, target.score, sample.unit)
    if sample.graded:
        count = sample.graded.count_by(sample.unit)
        found["qwk"] = lambda weights: metrics.quadratic_weighted_kappa_of(count(weights))
    return found


def _subtract(a: Floats | None, b: Floats | None, units: int) -> dict[str, Any] | None:
    """a, b: a figure of either run on the images, then in each replicate, [1 + B]; None where a
    table does not tell it. units: patients that it rests on."""
    if a is None or b is None or np.isnan(a[0] - b[0]):
        return None
    value, drawn = float(a[0] - b[0]), (a - b)[1:]
    return {
        "a": float(a[0]),
        "b": float(b[0]),
        "difference": value,
        "ci95": intervals.difference_interval(drawn, value, units),
        "p": intervals.p_value(drawn, value, units),
    }
