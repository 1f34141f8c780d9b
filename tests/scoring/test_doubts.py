"""What is said beside the figures."""

from dr_cli.scoring.doubts import doubt_leaks
from dr_cli.scoring.record import Context, Scoring, build_record
from tests.builders.predictions import table


def test_a_run_below_the_fellow_eye_on_a_leaking_split_is_told():
    rows = table(60)
    fellow = {
        "majority": {"accuracy": 0.7, "qwk": 0.0},
        "fellow_eye": {"accuracy": 0.85, "qwk": 0.95},
    }
    leaks = {"fellow_eye_in_train": 96, "duplicates_across_splits": 0}
    record = build_record(rows, Context(baselines=fellow, leaks=leaks), scoring=Scoring(100))
    nobody_knows = {"difference": None}  # what copying says of each image
    assert record["baselines"] == {name: {**pair, **nobody_knows} for name, pair in fellow.items()}
    assert record["leaks"] == leaks
    told = doubt_leaks(record)
    assert told in record["warnings"]
    assert "does not beat the 0.950" in told
    assert "96 of these 120 images" in told
    qwk = record["qwk"]["value"]
    for low, words in ((-0.01, "is not clearly above"), (0.01, None)):
        above = {"value": 0.05, "ci95": [low, 0.11]}
        pair = {"accuracy": 0.8, "qwk": qwk - 0.05, "difference": {"qwk": above}}
        told = doubt_leaks({**record, "baselines": {**fellow, "fellow_eye": pair}})
        assert told is None if words is None else words in told
    assert "(difference +0.050 (−0.010 to +0.110))" in doubt_leaks(
        {**record, "baselines": {"fellow_eye": pair | {"difference": {
            "qwk": {"value": 0.05, "ci95": [-0.01, 0.11]}}}}}
    )  # fmt: skip
    clean = {"fellow_eye_in_train": 0, "duplicates_across_splits": 0}
    assert doubt_leaks({**record, "leaks": clean}) is None
