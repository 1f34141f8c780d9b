"""What must be said beside a record's figures, in words: few patients, what is not known, a network
that does no better than copying the other eye."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dr_cli import words
from dr_cli.grades import OperatingPoint
from dr_cli.scoring import per_grade, subgroups
from dr_cli.scoring.intervals import UNDEFINED
from dr_cli.scoring.predictions import Sample

FEW = 30  # with 15 patients the interval of QWK held the truth in 91% of drawn sets, not in 95%


def find_doubts(
    record: Mapping[str, Any], sample: Sample, point: OperatingPoint | None
) -> list[str]:
    """Every warning that a record's own figures give, in words; sample: what they are of."""
    found = []
    if sample.patients is None:
        found.append(
            "no patient is known: intervals take each image for a patient of its own, and are "
            "too narrow where there are two eyes of one"
        )
    elif sample.unknown:
        found.append(f"{sample.unknown:,} images have no patient: each counts as one of its own")
    if sample.units < FEW:
        found.append(f"{sample.units} {sample.kind}s are few: intervals are rough")
    elif rare := per_grade.find_rare(sample):
        found.append(
            f"few patients: {', '.join(rare)}; with fewer than {per_grade.FEW} what rests on them "
            "is rough: rates of that grade, balanced accuracy, macro F1"
        )
    if record["subgroups"] and (small := subgroups.doubt_groups(record["subgroups"])):
        found.append(small)
    if sample.targets["referable"].score is None:
        found.append("no probability is known: no AUC, no calibration, no threshold to choose")
    elif point is None:
        found.append(
            "no threshold was chosen on validation images: sensitivity and specificity are at 0.5"
        )
    elif point.data not in (None, record["data"]):
        found.append(
            f"the threshold was chosen on other data ({point.data}): sensitivity and "
            "specificity seldom keep their balance when it travels"
        )
    if graded := sample.graded:
        absent = [str(k) for k, n in enumerate(record["grade_counts"]) if n == 0]
        if absent:
            found.append(f"no image of grade {', '.join(absent)}: figures are without it")
        if len(np.unique(graded.said)) == 1 and len(np.unique(graded.truth)) > 1:
            found.append(f"every image was called grade {graded.said[0]}")
        elif record["qwk"]["ci95"] and record["qwk"]["ci95"][0] <= 0:
            found.append(f"QWK {record['qwk']['value']:.3f} is not told apart from guessing (0)")
    found += _doubt_temperature(record["calibration"])
    told = doubt_leaks(record)
    return [*found, told] if told else found


def doubt_leaks(record: Mapping[str, Any]) -> str | None:
    """What must be said of a run on a split that leaks fellow eyes, in one sentence, or None."""
    fellow = (record["baselines"] or {}).get("fellow_eye")
    leaking = (record.get("leaks") or {}).get("fellow_eye_in_train") or 0
    if not fellow or not leaking or fellow["qwk"] is None or record["qwk"]["value"] is None:
        return None
    qwk = record["qwk"]["value"]
    difference = (fellow.get("difference") or {}).get("qwk") or UNDEFINED
    interval = difference["ci95"]
    if qwk > fellow["qwk"] and (interval is None or interval[0] > 0):
        return None
    told = "does not beat" if qwk <= fellow["qwk"] else "is not clearly above"
    apart = f" (difference {words.signed_figure(difference)})" if interval else ""
    return (
        f"QWK {qwk:.3f} {told} the {fellow['qwk']:.3f} of copying the other eye's grade without "
        f"a look at the image{apart}: {leaking:,} of these {record['n']:,} images have their "
        "fellow eye in train or val, so split by patient before you trust any of these figures"
    )


def _doubt_temperature(judged: Mapping[str, Any]) -> list[str]:
    """What is wrong with a temperature: the end of its range, or worse with it than without."""
    temperature, before = judged["temperature"], judged["before"]
    if not before or temperature == 1:
        return []
    found = [f"temperature {note}" for note in [judged["temperature_note"]] if note]
    worse = [name for name in ("ece", "nll") if judged[name] > before[name]]
    if worse:
        pairs = (f"{name.upper()} {before[name]:.3f} to {judged[name]:.3f}" for name in worse)
        told = ", ".join(pairs)
        found.append(
            f"temperature {temperature:.3g}, fitted on validation, makes the probabilities of "
            f"these images worse: {told}"
        )
    return found
