"""Limits: which figure misses its own, and names that are none."""

import pytest

from dr_cli.errors import UnmetError, UsageError
from dr_cli.scoring.limits import fail_under
from dr_cli.scoring.record import Scoring, build_record
from tests.builders.predictions import table


def test_fail_under_names_every_figure_that_misses():
    record = build_record(table(60), scoring=Scoring(0))
    fail_under(record, {"qwk": 0.1, "mean_absolute_error": 3, "referable.auc": 0.5})
    with pytest.raises(
        UnmetError, match=r"qwk 0\.\d+ is below 0\.99; calibration.ece .* is above 0"
    ):
        fail_under(record, {"qwk": 0.99, "accuracy": 0.1, "calibration.ece": 0})
    undefined = build_record(table(1).head(1), scoring=Scoring(0))
    with pytest.raises(UnmetError, match=r"referable\.auc is undefined"):
        fail_under(undefined, {"referable.auc": 0})
    with pytest.raises(UsageError, match=r"'kappa'.*qwk, .*referable\.auc"):
        fail_under(record, {"kappa": 0.5})
    assert UnmetError.exit_code == 3
