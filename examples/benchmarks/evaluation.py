"""How fast and how honest the figures of `dr eval` are. Run one part or all:

    python examples/benchmarks/evaluation.py --speed
    python examples/benchmarks/evaluation.py --coverage --null
    python examples/benchmarks/evaluation.py --cuts --temperature

--speed times 50,000 images with 2,000 replicates. --coverage draws data sets of patients with two
alike eyes from a population whose true figures are known, and counts how often each interval of a
record holds the truth, at screening and at balanced prevalence. --null draws networks that are
exchangeable, and counts how often a comparison finds a difference, and how often it finds a worse
one. Both are seeded; --sets
says how many data sets a point has, and the table how far chance goes with so many (its standard
error). --cuts compares ways to fit the thresholds on the expected grade (about 2 minutes),
--temperature ways to take a temperature.
"""

import argparse
import re
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from dr_cli.grades import NUM_GRADES, Calibration, softmax
from dr_cli.scoring import calibration, flips, honesty, intervals, metrics
from dr_cli.scoring.comparison import TESTS, compare, mcnemar_of
from dr_cli.scoring.flat import flatten
from dr_cli.scoring.predictions import Sample
from dr_cli.scoring.record import Scoring, build_record


def speed() -> None:
    (rows,) = draw_networks(np.random.default_rng(0), 25_000, "screening")
    build_record(rows.head(100))  # imports are not what is timed
    for name, work in (
        ("build_record", lambda: build_record(rows, calibration=Calibration(temperature=1.2))),
        ("compare two runs", lambda: compare([("a", rows), ("b", rows)])),
    ):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{name}: 50,000 images x 2,000 replicates in {wall:.1f} s ({cpu:.1f} s of CPU)")
    try:
        import resource
    except ImportError:  # Windows
        return
    unit = 2**20 if sys.platform == "darwin" else 2**10
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit:.0f} MiB")


# --- coverage

PREVALENCES = {"screening": (0.73, 0.07, 0.15, 0.03, 0.02), "balanced": (0.2,) * 5}
PATIENTS = (30, 100, 300, 1000)
RUNS = (2, 5, 10, 20)
TESTED = (100, 300, 1000)  # patients that runs are compared on
WORSE = 0.65  # deviation of the errors of a network that is worse than one of 0.5
Counts = Counter[tuple[Any, ...]]


def draw_eyes(rng: np.random.Generator, patients: int, alike: float) -> np.ndarray:
    """Standard normal [2 P], two a patient with this correlation."""
    own, shared = rng.normal(size=2 * patients), np.repeat(rng.normal(size=patients), 2)
    return np.sqrt(alike) * shared + np.sqrt(1 - alike) * own


def draw_networks(
    rng: np.random.Generator,
    patients: int,
    prevalence: str,
    networks: int = 1,
    sharpness: float = 0.7,
    worse: float | None = None,
) -> list[pd.DataFrame]:
    """Prediction tables of the same eyes, each of a network as good as the others; with `worse`
    one more, last, with errors of this deviation in place of 0.5.

    Severity correlates by 0.8 between fellow eyes, errors by 0.5, and by 0.6 between networks.
    Probabilities are those that severity has given what the network sees, too sharp where
    `sharpness` is below 1.
    """
    cuts, error = ndtri(np.cumsum(PREVALENCES[prevalence])[:-1]), 0.5
    severity, shared = draw_eyes(rng, patients, 0.8), draw_eyes(rng, patients, 0.5)
    number = np.arange(2 * patients)
    labels = {
        "path": number.astype(str),
        "grade": np.digitize(severity, cuts),
        "patient": (number // 2).astype(str),
        "eye": np.where(number % 2, "right", "left"),
        "camera": np.where(number // 2 % 2, "A", "B"),
    }
    edges = np.array([-np.inf, *cuts, np.inf])
    spread = sharpness * error / np.sqrt(1 + error**2)
    tables = []
    for size in [error] * networks + ([] if worse is None else [worse]):
        own = draw_eyes(rng, patients, 0.5)
        seen = severity + size * (np.sqrt(0.6) * shared + np.sqrt(0.4) * own)
        p = np.diff(ndtr((edges - (seen / (1 + error**2))[:, None]) / spread), axis=1)
        p = np.clip(p, 0, 1)
        named = {f"p{k}": p[:, k] for k in range(NUM_GRADES)}
        tables.append(pd.DataFrame({**labels, **named, "predicted": p.argmax(axis=1)}))
    return tables


def list_intervals(record: dict[str, Any]) -> dict[str, tuple[float | None, Any]]:
    """Every figure of a record that may have an interval: name -> value, interval."""
    told = {
        name: (value, interval)
        for name, value, interval in flatten(record)
        if not name.startswith(("by.", "baseline.")) and ".counts." not in name
    }
    for row in record["per_grade"]:
        for rate, interval in row["ci95"].items():
            told[f"of each grade: {rate} {row['grade']}"] = row[rate], interval
    if record["subgroups"]:
        by = record["subgroups"]["column"]
        for group in record["subgroups"]["groups"]:
            for name in ("accuracy", "qwk"):
                found = (group["difference"] or {}).get(name)
                if found:
                    told[f"difference by {by}: {name}"] = found["value"], found["ci95"]
    return told


def find_truth(prevalence: str) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The figures of 200,000 patients, where groups do not differ; and what of each grade its means
    are of, [5]."""
    (population,) = draw_networks(np.random.default_rng(7), 200_000, prevalence)
    record = build_record(population, scoring=Scoring(0))
    truth = {name: value for name, (value, _) in list_intervals(record).items()}
    (calm,) = draw_networks(np.random.default_rng(8), 200_000, prevalence, sharpness=1.0)
    truth[CALM] = build_record(calm, scoring=Scoring(0))["calibration"]["ece"]
    rates = {
        part + name: rate(counts)
        for part, counts in count_all(population).items()
        for name, rate in MEANS.items()
    }
    return truth, rates


CALM = "calibration.ece, calibrated"


def count_covered(
    prevalence: str,
    patients: int,
    seeds: range,
    replicates: int,
    true: tuple[dict[str, float], dict[str, np.ndarray]],
) -> Counts:
    """(figure, "held" | "missed" | "none") -> data sets."""
    counts: Counts = Counter()
    truth, rates = true
    for seed in seeds:
        rng = np.random.default_rng([patients, seed])
        (rows,) = draw_networks(rng, patients, prevalence)
        scoring = Scoring(replicates, seed, by="eye" if seed % 2 else "camera")
        record = build_record(rows, scoring=scoring)
        told = list_intervals(record)
        (calm,) = draw_networks(rng, patients, prevalence, sharpness=1.0)
        told[CALM] = measure_calm(calm, replicates, seed)
        of_these = truth | find_truth_of_present(rows, rates)
        for name, (value, interval) in told.items():
            real = 0.0 if name.startswith("difference by") else of_these.get(name)
            if real is None or name.startswith(("calibration.before", "ungradable")):
                continue
            kind = re.sub(r"^(of each grade: .*) \d$", r"\1", name)
            if interval is not None:
                counts[kind, "held" if interval[0] <= real <= interval[1] else "missed"] += 1
            elif value is not None:
                counts[kind, "none"] += 1
    return counts


MEANS = {"balanced_accuracy": metrics.recall_of, "macro_f1": metrics.f1_of}


def count_all(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """Confusion counts of the images and of each patient's worst eye, by their part of a record."""
    sample = Sample.from_table(rows)
    worst = sample.by_patient()
    assert sample.graded
    assert worst
    assert worst.graded
    return {"": sample.graded.counts, "per_patient.": worst.graded.counts}


def find_truth_of_present(rows: pd.DataFrame, rates: dict[str, np.ndarray]) -> dict[str, float]:
    """What a mean over grades estimates where a grade is absent: the mean over the others."""
    return {
        part + name: float(rates[part + name][~np.isnan(rate(counts))].mean())
        for part, counts in count_all(rows).items()
        for name, rate in MEANS.items()
    }


def measure_calm(rows: pd.DataFrame, replicates: int, seed: int) -> tuple[float, Any]:
    """ECE and its interval where the probabilities are what they say."""
    sample = Sample.from_table(rows)
    assert sample.graded
    assert sample.graded.probabilities is not None
    graded = sample.graded.truth, sample.graded.probabilities
    sums = honesty.sum_gaps(*graded, sample.unit, sample.units)
    gaps = intervals.measure({"gaps": sums}, sample.units, replicates, seed)["gaps"]
    bounds = honesty.bound_errors(*graded, sample.unit, gaps)
    return metrics.expected_calibration_error(*graded), bounds["ece"]


def coverage(sets: int, replicates: int, processes: int) -> None:
    chance = np.sqrt(0.95 * 0.05 / sets)
    print(
        f"{sets} data sets: share whose 95% interval holds the truth (standard error {chance:.3f});"
    )
    print("in brackets the share that has no interval; each patient has two alike eyes")
    columns = [(prevalence, patients) for prevalence in PREVALENCES for patients in PATIENTS]
    with ProcessPoolExecutor(processes) as pool:
        truths = dict(zip(PREVALENCES, pool.map(find_truth, PREVALENCES), strict=True))
        parts = [
            (p, n, range(at, min(at + 50, sets))) for p, n in columns for at in range(0, sets, 50)
        ]
        found = pool.map(
            count_covered,
            *zip(*parts, strict=True),
            [replicates] * len(parts),
            [truths[p] for p, *_ in parts],
        )
        counts: dict[tuple[str, int], Counts] = {column: Counter() for column in columns}
        for (prevalence, patients, _), part in zip(parts, found, strict=True):
            counts[prevalence, patients] += part
    names = dict.fromkeys(name for found_ in counts.values() for name, _ in found_)
    print(f"{'':50}" + "".join(f"{p[:9]:>15}" for p, _ in columns))
    print(f"{'patients':50}" + "".join(f"{n:>15}" for _, n in columns))
    for name in names:
        if any(tell(counts[c], name) not in ("-", "none") for c in columns):
            print(f"{name:50}" + "".join(f"{tell(counts[c], name):>15}" for c in columns))


def tell(counts: Counts, name: str) -> str:
    held, missed, none = (counts[name, what] for what in ("held", "missed", "none"))
    if not held + missed:
        return "-" if not none else "none"
    without = none / (held + missed + none)
    return f"{held / (held + missed):.3f}" + (
        f" ({without:.2f})" if without >= 0.005 else "       "
    )


# --- the null


def count_found(prevalence: str, patients: int, seeds: range, replicates: int) -> Counts:
    """(test, runs, what) -> "single" of the "pairs" have p < 0.05; of so many data sets "any" pair
    has one corrected by what the pairs have in common, "holm" one by their number. A network that
    is worse (`WORSE`), in place of the last one, is "found" beside another one in as many of those
    "asked", and "found by holm"."""
    counts: Counts = Counter()
    for seed in seeds:
        rng = np.random.default_rng([patients, seed, 1])
        tables = draw_networks(rng, patients, prevalence, max(RUNS), worse=WORSE)
        samples = [Sample.from_table(table) for table in tables]
        for test, share_out in TESTS.items():
            parts = [share_out(sample) for sample in samples]
            if any(part is None or part.shares is None for part in parts):
                continue
            shares = np.stack([part.shares for part in parts if part])
            pairs = list(combinations(range(len(samples)), 2))
            p = {pair: find_p(test, shares, *pair) for pair in pairs}
            for runs in RUNS:
                for others in (runs - 1, len(samples) - 1):  # the last one as good, or worse
                    of_these = [*range(runs - 1), others]
                    few = list(combinations(of_these, 2))
                    alone = [p[pair] for pair in few]
                    joint = flips.adjust(alone, np.array(few), shares, replicates, seed)
                    by_holm = flips.holm(alone)
                    if others < runs:
                        counts[test, runs, "pairs"] += len(few)
                        counts[test, runs, "single"] += sum(each < 0.05 for each in alone if each)
                        counts[test, runs, "any"] += any(each < 0.05 for each in joint if each)
                        counts[test, runs, "holm"] += any(each < 0.05 for each in by_holm if each)
                    else:
                        counts[test, runs, "asked"] += 1
                        counts[test, runs, "found"] += joint[runs - 2] < 0.05
                        counts[test, runs, "found by holm"] += by_holm[runs - 2] < 0.05
    return counts


def find_p(test: str, shares: np.ndarray, i: int, j: int) -> float | None:
    """As `compare` has it."""
    own = shares[i] - shares[j]
    if test.startswith("mcnemar"):
        return mcnemar_of(own.astype(np.int64))
    return flips.p_value(own)


def null(sets: int, replicates: int, processes: int) -> None:
    chance = np.sqrt(0.05 * 0.95 / sets)
    print(
        f"exchangeable networks, {sets} data sets. Share of pairs with p < 0.05; of sets in which"
    )
    print("any pair of so many runs has one corrected, by what pairs have in common, and by Holm")
    print(f"(standard error of the latter two {chance:.3f}); then of sets in which a worse network")
    print(
        f"in place of the last (errors {WORSE} for 0.5) is told from one of the others, by either"
    )
    columns = [(prevalence, patients) for prevalence in PREVALENCES for patients in TESTED]
    parts = [(p, n, range(at, min(at + 10, sets))) for p, n in columns for at in range(0, sets, 10)]
    counts: dict[tuple[str, int], Counts] = {column: Counter() for column in columns}
    with ProcessPoolExecutor(processes) as pool:
        found = pool.map(count_found, *zip(*parts, strict=True), [replicates] * len(parts))
        for (prevalence, patients, _), part in zip(parts, found, strict=True):
            counts[prevalence, patients] += part
    print(f"{'':18}{'runs':>5}" + "".join(f"{f'{p} {n}':>30}" for p, n in columns))
    for test in TESTS:
        for runs in RUNS:
            cells = (tell_sizes(c, test, runs, sets) for c in counts.values())
            print(f"{test:18}{runs:>5}" + "".join(f"{cell:>30}" for cell in cells))


def tell_sizes(counts: Counts, test: str, runs: int, sets: int) -> str:
    single = counts[test, runs, "single"] / max(counts[test, runs, "pairs"], 1)
    families = "/".join(f"{counts[test, runs, by] / sets:.3f}" for by in ("any", "holm"))
    power = [counts[test, runs, by] for by in ("found", "found by holm")]
    told = "/".join(f"{by / max(counts[test, runs, 'asked'], 1):.2f}" for by in power)
    return f"{single:.3f}, {families}, {told}"


# --- cuts


def cuts() -> None:
    """QWK on 20,000 unseen images with cuts from n validation images, mean of 30 data sets."""
    print("prior     slope  n     start  scan   average of 50")
    for name, prior in {"EyePACS": (73, 7, 15, 3, 2), "IDRiD": (33, 5, 33, 17, 12)}.items():
        for slope, shift, spread in ((1, 0, 0.5), (0.75, 0.3, 0.5), (0.55, 0.25, 0.6)):
            for n in (60, 150, 400):
                scores = []
                for seed in range(30):
                    rng = np.random.default_rng(seed)
                    grade = rng.choice(5, n + 20_000, p=np.array(prior) / 100)
                    noise = spread * (0.5 + 0.25 * grade) * rng.normal(size=len(grade))
                    value = np.clip(shift + slope * grade + noise, 0, 4)
                    seen, new = slice(n), slice(n, None)
                    start = np.array(calibration.START_CUTS)
                    tried = (
                        start,
                        calibration._climb(grade[seen], value[seen], start),
                        calibration.fit_thresholds(grade[seen], two_grades(value[seen])),
                    )
                    scores.append(
                        [
                            metrics.quadratic_weighted_kappa(grade[new], np.digitize(value[new], c))
                            for c in tried
                        ]
                    )
                print(
                    f"{name:9} {slope:<6} {n:<5}",
                    *(f"{m:.3f} " for m in np.mean(scores, axis=0)),
                    flush=True,
                )


def two_grades(value: np.ndarray) -> np.ndarray:
    """Probabilities [N, 5] with these expected grades [N], on the two grades next to them."""
    low = np.minimum(np.floor(value).astype(int), NUM_GRADES - 2)
    p = np.zeros((len(value), NUM_GRADES))
    row = np.arange(len(value))
    p[row, low], p[row, low + 1] = 1 - (value - low), value - low
    return p


# --- temperature


def temperatures(sets: int) -> None:
    """What ways to take a temperature do to 20,000 unseen images, against none."""
    ways = {
        "always": calibration.fit_temperature,
        "out of bag": calibration.support_temperature,
        "halves": judge_by_halves,
    }
    print("n    true T  way         NLL      ECE     worse")
    for n in (30, 66, 150, 400):
        for true in (0.8, 1.0, 1.25, 2.0):
            unseen = sharp_logits(np.random.default_rng(9), 20_000, true)
            before = judge_temperature(1.0, *unseen)
            for name, take in ways.items():
                after = []
                for seed in range(sets):
                    taken = take(*sharp_logits(np.random.default_rng(seed), n, true))
                    after.append(judge_temperature(taken, *unseen) - before)
                nll, ece = np.mean(after, axis=0)
                worse = np.mean([found[0] > 1e-4 for found in after])
                print(f"{n:<4} {true:<7} {name:11} {nll:+.4f}  {ece:+.4f} {worse:.2f}", flush=True)


def sharp_logits(rng: np.random.Generator, n: int, true: float) -> tuple[np.ndarray, np.ndarray]:
    """Grades [n] and logits [n, 5] that are honest after the temperature `true`."""
    grade = rng.choice(5, n, p=[0.5, 0.1, 0.2, 0.1, 0.1])
    seen = grade + rng.normal(size=n)
    logits = -((np.arange(5) - seen[:, None]) ** 2) / 1.5
    p = softmax(logits)
    drawn = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, 4)
    return drawn, logits * true


def judge_temperature(taken: float, grade: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """NLL and ECE of images with it."""
    p = softmax(logits / taken)
    return np.array(
        [metrics.negative_log_likelihood(grade, p), metrics.expected_calibration_error(grade, p)]
    )


def judge_by_halves(grade: np.ndarray, logits: np.ndarray) -> float:
    """Fitted where either half, on average, is better off with what the other one fitted."""
    order = np.random.default_rng(0).permutation(len(grade))
    gain = 0.0
    for own, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        taken = calibration.fit_temperature(grade[own], logits[own])
        without, with_it = (
            judge_temperature(t, grade[other], logits[other])[0] for t in (1.0, taken)
        )
        gain += (without - with_it) * len(other)
    return calibration.fit_temperature(grade, logits) if gain > 0 else 1.0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--null", action="store_true")
    parser.add_argument("--sets", type=int, default=400, help="data sets of a point (400)")
    parser.add_argument("--replicates", type=int, default=400, help="of each interval (400)")
    parser.add_argument("--processes", type=int, default=2, help="at once (2)")
    parser.add_argument("--cuts", action="store_true")
    parser.add_argument("--temperature", action="store_true", help="takes --sets, too")
    asked = parser.parse_args()
    if not (asked.speed or asked.coverage or asked.null or asked.cuts or asked.temperature):
        parser.error("say --speed, --coverage, --null, --cuts or --temperature")
    if asked.speed:
        speed()
    if asked.coverage:
        coverage(asked.sets, asked.replicates, asked.processes)
    if asked.null:
        null(asked.sets, asked.replicates, asked.processes)
    if asked.cuts:
        cuts()
    if asked.temperature:
        temperatures(asked.sets)
