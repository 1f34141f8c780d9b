"""What the report says in sentences: summary, warnings, privacy, model card."""

import re
from collections.abc import Iterator, Sequence

from dr_cli.scoring.doubts import doubt_leaks
from dr_cli.scoring.record import Record
from dr_cli.words import figure, number, percent, signed_figure

INTENDED_USE = (
    "For research and teaching. This is no medical device: it makes no diagnosis, "
    "and nobody's treatment may rest on it."
)
OUT_OF_SCOPE = (
    "Diagnosis, triage, or any decision about a person's care; photographs from cameras, "
    "fields or populations that the training data do not hold, before they were measured on "
    "such; photographs that a reader would call ungradable; eye diseases other than diabetic "
    "retinopathy."
)
METRICS = (
    "QWK is Cohen's kappa with quadratic weights: 0 is chance, 1 is full agreement, and a "
    "mistake by two grades weighs four times one by a single grade. Referable is grade 2 or "
    "more. Intervals are over patients, with both their eyes. "
    "Epoch, temperature and thresholds are chosen on validation images unless a warning says "
    "otherwise."
)
LIMITS = (
    "The true grades are human readings and carry their readers' disagreement. A test set "
    "from the training data's own source says little about another clinic's. An interval "
    "tells how far chance in the choice of patients reaches, and nothing of such shifts."
)
REPORTING = (
    "Of what STARD-AI and TRIPOD+AI ask for this page holds, where a run's record has it: the flow "
    "of photographs and patients with the reasons why some were left out; the data, their splits "
    "and leaks; the network with every option and version; the threshold and where it was chosen; "
    "2×2 counts, sensitivity, specificity and predictive values with 95% intervals; "
    "discrimination, calibration and net benefit; figures by grade and by patient. Only you can "
    "tell: who the patients were, how and when they were chosen, their age, sex, ethnicity and "
    "kind of diabetes, the cameras; who graded, and how disagreements were settled; who is to use "
    "it, where and for what; registration, ethics and funding."
)
NAMES = {"train": "training", "val": "validation", "test": "test", "all": "pooled"}
# of splits, before "images"


CHOSEN_ON_TEST = (
    "The best run was picked by its QWK on the very images that it is reported on, as not every "
    "run has validation images of its own: that figure is optimistic, the more so the more runs "
    "there are."
)
OTHER_VALIDATION = (
    "The runs were validated on different images: which of them is best may be the images' doing."
)


def summarise(run: Record, runs: int, chosen_by: str) -> list[str]:
    """What the best of so many runs reached, beside what needs no network, and on what data."""
    record = run["record"]
    best = f"Of {runs} runs, {run['name']} has the best {chosen_by}" if runs > 1 else run["name"]
    patients = f" of {record['patients']:,} patients" if record.get("patients") else ""
    told = doubt_leaks(record)
    return [
        f"{best}: on {record['n']:,} {NAMES[run['split']]} images{patients} it reaches "
        f"QWK {figure(record['qwk'])} and accuracy {figure(record['accuracy'], True)}.",
        *_tell_baselines(record["baselines"]),
        f"Data: {_name_data(run)}.",
        *_tell_leaks(record),
        *([f"{told}."] if told else []),
    ]


def write_card(runs: Sequence[Record]) -> list[dict[str, str]]:
    """The model card, with every data set that the runs were made on."""
    told = [f"{_name_data(run)}; fingerprint {run['data']['fingerprint']}" for run in runs]
    parts = (
        ("Intended use", INTENDED_USE),
        ("Out of scope", OUT_OF_SCOPE),
        ("Data", ". ".join(dict.fromkeys(told)) + "."),
        ("Metrics", METRICS),
        ("Limits", LIMITS),
        ("For a paper", REPORTING),
    )
    return [{"title": title, "text": text} for title, text in parts]


def name_decision(run: Record) -> str:
    """How the probabilities become a grade."""
    if run["decision"]["kind"] == "argmax":
        return "the likeliest one"
    return "cut from the expected grade by thresholds"


def disclose(runs: Sequence[Record], no_pictures: bool) -> str:
    """Whose images are in it, for whoever is about to share it."""
    if no_pictures:
        return "No photograph, file name or patient is in this page."
    if all(run["drawn"] for run in runs):
        return "Every eye in this page is drawn by a program: it holds no patient's image."
    images = sum(len(run["pictures"]) for run in runs if not run["drawn"])
    holds = f"holds {images} photographs of patients and" if images else "holds no photograph, but"
    return (
        f"This page {holds} names patients' images: ask before you share it. "
        "dr report --no-pictures makes one without any."
    )


def warn(runs: Sequence[Record], comparable: bool) -> Iterator[str]:
    """What whoever reads the figures of these runs must know first."""
    measured_on = {(r["data"]["fingerprint"], r["record"]["n"], r["split"]) for r in runs}
    if not comparable or len(measured_on) > 1:
        yield (
            "These runs were not all measured on the same images with the same grades: "
            "their figures cannot be compared as they stand."
        )
    if any(run["drawn"] for run in runs):
        yield (
            "The eyes of the built-in sample set are drawn, no photographs: "
            "these figures say nothing about real patients."
        )
    if optimistic := [run["name"] for run in runs if run["options"]["val"] == "test"]:
        yield (
            f"Epoch, temperature and thresholds were chosen on the test images "
            f"({', '.join(optimistic)}): "
            "those figures are optimistic."
        )


def _tell_baselines(baselines: Record) -> Iterator[str]:
    told = [
        f"{what} scores QWK {number(base['qwk'])} and accuracy {percent(base['accuracy'])}"
        + _tell_difference(base.get("difference") or {})
        for key, what in (
            ("majority", "always predicting the commonest grade"),
            ("fellow_eye", "copying the grade of the patient's other eye"),
        )
        if (base := baselines.get(key))
    ]
    if told:
        yield f"For comparison, {', and '.join(told)}."


def _tell_difference(difference: Record) -> str:
    """How much more the network has on the same patients; nothing in older records."""
    qwk = difference.get("qwk") or {}
    if qwk.get("value") is None:
        return ""
    return f" (the network's QWK less its: {signed_figure(qwk)})"


def _name_data(run: Record) -> str:
    """Data set, layout and images by split, without the path that leads there."""
    data = run["data"]
    name = re.split(r"[/\\]", data.get("root", "").rstrip("/\\"))[-1]
    drawn = "drawn eyes, no photographs" if run["drawn"] else ""
    told = ", ".join(filter(None, [name, drawn, f"layout {data['layout']}"]))
    counts = [f"{row['n']:,} {NAMES[row['split']]}" for row in run["splits"]]
    return f"{told}: {', '.join(counts)} images" if counts else told


def _tell_leaks(record: Record) -> Iterator[str]:
    """How many test images are half known from train or val; nothing where that is not known."""
    if (leaks := record.get("leaks")) is None:
        return
    others = "train" if record.get("split") == "val" else "train or validation"
    found = [
        f"{leaks[key]:,} of these {record['n']:,} images have {what} in {others}"
        for key, what in (
            ("fellow_eye_in_train", "their fellow eye"),
            ("duplicates_across_splits", "a duplicate"),
        )
        if leaks.get(key)
    ]
    yield f"Leaks: {'; '.join(found)}." if found else _deny_leaks(record, leaks, others)


def _deny_leaks(record: Record, leaks: Record, others: str) -> str:
    """That nothing leaks, of what was looked for: whose eye it is must be known for one half."""
    looked = leaks.get("duplicates_across_splits") is not None and "flow" in record  # else before
    if record.get("patients") is None:
        if looked:
            none = f"No duplicate of these images stands in {others}"
            return f"{none}; whose eyes they are is not known."
        return f"Whose eyes these are is not known, and duplicates in {others} were not looked for."
    if looked:
        return f"No fellow eye and no duplicate of these images stands in {others}."
    return f"No fellow eye of these images stands in {others}; duplicates were not looked for."
