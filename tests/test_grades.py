"""A calibration: what it makes of logits, its record, and several of them pooled."""

import json

import numpy as np
import pytest

from dr_cli.grades import Calibration, OperatingPoint, Threshold, expected_grade

P = np.array([[0.5, 0.3, 0.1, 0.1, 0.0], [0.0, 0.0, 0.2, 0.5, 0.3]])


def test_cuts_decide_on_the_expected_grade_and_their_own_value_is_the_next_grade():
    low = float(expected_grade(P)[0])
    assert Calibration().decide(P).tolist() == [0, 3]
    assert Calibration((low, 1.5, 2.5, 3.05)).decide(P).tolist() == [1, 4]
    assert Calibration((low + 1e-9, 1.5, 2.5, 3.5)).decide(P).tolist() == [0, 3]


def test_the_temperature_divides_the_logits():
    logits = np.array([[0.0, 1.0, 2.0, 0.0, -1.0]], np.float32)
    sharp = Calibration(temperature=0.5).probabilities(logits)
    assert sharp.sum() == pytest.approx(1)
    assert sharp == pytest.approx(Calibration().probabilities(2 * logits))


def test_a_calibration_is_what_its_record_says():
    point = OperatingPoint(Threshold(0.3, "youden", 0.9, 0.8), Threshold(0.2, "youden"))
    for one in (Calibration(), Calibration((0.5, 1.5, 2.5, 3.5), 1.7, point)):
        record = json.loads(json.dumps(one.to_record()))
        assert set(record) == {"decision", "temperature", "operating_point"}
        assert Calibration.from_record(record) == one
    with pytest.raises(ValueError, match="unknown decision 'coin'"):
        Calibration.from_record({"decision": {"kind": "coin"}, "temperature": 1.0})


EVEN = [[0.04] * 5] * 5


@pytest.mark.parametrize(
    "spoilt",
    [
        {"decision": {"kind": "thresholds", "thresholds": [3.5, 0.5, 1.5, 2.5]}},
        {"decision": {"kind": "thresholds", "thresholds": [float("nan"), 0.5, 1.5, 2.5]}},
        {"decision": {"kind": "thresholds", "thresholds": [0.5, 1.5, 2.5, 10**400]}},
        {"temperature": float("inf")},
        {"both_eyes": {"joint": [[0] * 5] * 5, "weight": 0.5}},
        {"both_eyes": {"joint": EVEN, "weight": float("nan")}},
        {"both_eyes": {"joint": EVEN, "weight": 2}},
    ],
)
def test_numbers_that_can_decide_nothing_are_refused(spoilt):
    sound = Calibration((0.5, 1.5, 2.5, 3.5)).to_record()
    sound |= {"both_eyes": {"joint": EVEN, "weight": 1}}
    Calibration.from_record(sound)
    with pytest.raises(ValueError, match=r"cuts|temperature|both_eyes"):
        Calibration.from_record(sound | spoilt)


def test_several_networks_decide_by_the_means_and_where_one_has_none_by_none():
    point = [OperatingPoint(Threshold(t, "youden"), Threshold(t / 2, "youden")) for t in (0.2, 0.4)]
    a, b = Calibration((0, 1, 2, 3), 1.5, point[0]), Calibration((1, 2, 3, 4), 0.7, point[1])
    both = Calibration.pooled([a, b])
    assert both.cuts == (0.5, 1.5, 2.5, 3.5)
    assert both.temperature is None
    assert both.operating_point is not None
    assert both.operating_point.referable.value == pytest.approx(0.3)
    assert both.operating_point.referable.rule == "youden, mean of 2 networks"
    assert Calibration.pooled([a, Calibration()]) == Calibration(temperature=None)
    assert Calibration.pooled([a]) is a
