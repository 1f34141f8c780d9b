"""How fast and how honest the figures of `dr eval` are. Run one part or all:

    python examples/benchmarks/evaluation.py --speed
    python examples/benchmarks/evaluation.py --coverage coverage.png
    python examples/benchmarks/evaluation.py --cuts

--speed times 50,000 images with 2,000 replicates. --coverage draws many data sets of patients
with two eyes from a population whose true figures are known, counts how often the 95% interval
holds the truth, by patients and by images, and draws that into a file (about 8 minutes).
--cuts compares ways to fit the thresholds on the expected grade (about 2 minutes).
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dr_cli.grades import NUM_GRADES, Calibration, softmax
from dr_cli.scoring import calibration, intervals, metrics
from dr_cli.scoring.comparison import compare
from dr_cli.scoring.record import build_record

GRADE_CUTS = (0.6, 1.0, 2.2, 3.0)  # on the hidden severity: about 73/9/15/3/1% as in EyePACS
PATIENTS = (15, 30, 60, 120, 250, 500)


def eyes(rng: np.random.Generator, patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Two eyes a patient, alike in severity and in what the network gets wrong.

    -> grade [2 P] int, seen [2 P] float: severity as the network sees it.
    """
    severity = np.repeat(rng.normal(size=patients), 2) + 0.4 * rng.normal(size=2 * patients)
    error = np.repeat(rng.normal(size=patients), 2) + 0.5 * rng.normal(size=2 * patients)
    return np.digitize(severity, GRADE_CUTS), severity + 0.5 * error


def table(patients: int, seed: int = 0) -> pd.DataFrame:
    """A prediction table of `patients` with two eyes."""
    grade, seen = eyes(np.random.default_rng(seed), patients)
    p = np.exp(-((np.array([0, 0.8, 1.6, 2.6, 3.4]) - seen[:, None]) ** 2))
    p /= p.sum(axis=1, keepdims=True)
    number = np.arange(len(grade))
    return pd.DataFrame(
        {
            "path": [f"{i}.jpg" for i in number],
            "grade": grade,
            "patient": [f"{i // 2}" for i in number],
            "eye": np.where(number % 2, "right", "left"),
            **{f"p{k}": p[:, k] for k in range(NUM_GRADES)},
            "predicted": p.argmax(axis=1),
        }
    )


def speed() -> None:
    rows = table(25_000)
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


def figures(grade: np.ndarray, seen: np.ndarray, unit: np.ndarray) -> dict[str, Callable[..., Any]]:
    """Statistics of weights [B, units], as `record` builds them."""
    predicted = np.digitize(seen, GRADE_CUTS)
    confusion = intervals.count_confusion(grade, predicted, NUM_GRADES, unit)
    refer = intervals.count_confusion(grade >= 2, predicted >= 2, 2, unit)
    return {
        "accuracy": lambda w: metrics.accuracy_of(confusion(w)),
        "QWK": lambda w: metrics.quadratic_weighted_kappa_of(confusion(w)),
        "referable AUC": metrics.weigh_roc_area(grade >= 2, seen, unit),
        "referable sensitivity": lambda w: metrics.recall_of(refer(w))[:, 1],
    }


def covered(patients: int, by_patient: bool, sets: int, replicates: int) -> dict[str, float]:
    """Share of `sets` data sets whose interval holds the population's figure (of those that
    have an interval)."""
    rng = np.random.default_rng(patients)
    hits: dict[str, list[bool]] = {name: [] for name in TRUTH}
    for number in range(sets):
        grade, seen = eyes(rng, patients)
        unit = np.arange(2 * patients) // (2 if by_patient else 1)
        statistics = figures(grade, seen, unit)
        found = intervals.measure(statistics, unit[-1] + 1, replicates, number)
        resting_on = {"referable sensitivity": grade >= 2, "referable AUC": grade >= 2}
        for name, (value, *drawn) in found.items():
            units = len(np.unique(unit[resting_on.get(name, slice(None))]))
            interval = intervals.interval(np.array(drawn), value, units)
            if interval:
                hits[name].append(interval[0] <= TRUTH[name] <= interval[1])
    return {name: float(np.mean(found)) if found else np.nan for name, found in hits.items()}


TRUTH: dict[str, float] = {}


def coverage(path: Path, sets: int, replicates: int) -> None:
    from matplotlib.figure import Figure

    grade, seen = eyes(np.random.default_rng(0), 2_000_000)
    once = np.ones((1, len(grade)), np.int8)
    TRUTH.update(
        {name: float(f(once)[0]) for name, f in figures(grade, seen, np.arange(len(grade))).items()}
    )
    print("truth:", {name: round(value, 4) for name, value in TRUTH.items()})
    found = {
        by: [covered(patients, by, sets, replicates) for patients in PATIENTS]
        for by in (True, False)
    }
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots(1, len(TRUTH), sharey=True)
    noise = 1.96 * np.sqrt(0.95 * 0.05 / sets)
    for ax, name in zip(axes, TRUTH, strict=True):
        ax.axhspan(0.95 - noise, 0.95 + noise, color="0.9", label=f"95%, as {sets} sets can tell")
        for by, style, label in (
            (True, {"marker": "o", "color": "#0072B2"}, "patients drawn"),
            (False, {"marker": "s", "color": "#D55E00", "ls": "--"}, "images drawn"),
        ):
            shares = [row[name] for row in found[by]]
            ax.plot(PATIENTS, shares, label=label, **style)
            print(
                f"{name}, {label}:",
                " ".join(f"{p}:{s:.3f}" for p, s in zip(PATIENTS, shares, strict=True)),
            )
        ax.set(title=name, xlabel="patients (two eyes each)", xscale="log", ylim=(0.7, 1.01))
        ax.set_xticks(PATIENTS, [str(p) for p in PATIENTS])
        ax.minorticks_off()
    axes[0].set_ylabel("intervals that hold the truth")
    axes[0].legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=150)
    print(path)


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
    parser.add_argument("--coverage", type=Path, metavar="FILE")
    parser.add_argument("--sets", type=int, default=1000, help="data sets of a point (1000)")
    parser.add_argument("--replicates", type=int, default=400, help="of each interval (400)")
    parser.add_argument("--cuts", action="store_true")
    parser.add_argument("--temperature", action="store_true", help="takes --sets, too")
    asked = parser.parse_args()
    if not (asked.speed or asked.coverage or asked.cuts or asked.temperature):
        parser.error("say --speed, --coverage FILE, --cuts or --temperature")
    if asked.speed:
        speed()
    if asked.coverage:
        coverage(asked.coverage, asked.sets, asked.replicates)
    if asked.cuts:
        cuts()
    if asked.temperature:
        temperatures(asked.sets)
