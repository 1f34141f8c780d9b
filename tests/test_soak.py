"""Ten minutes of use without a pause, five of the grader and five of the service: nothing grows."""

import numpy as np
import pytest

from tests.test_fuzz import fuzzed, run  # noqa: F401 - fixtures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]


@pytest.mark.parametrize("what", ["predict", "service"])
def test_nothing_grows(fuzzed, run, tmp_path, what):  # noqa: F811
    from trials import soaked

    soak = {"predict": soaked.soak_predict, "service": soaked.soak_service}[what]
    assert soak(np.random.default_rng(0), tmp_path, run, 300) > 100
