"""Numbers for people."""

import pytest

from dr_cli import words


@pytest.mark.parametrize(
    ("value", "told"),
    [(None, "n/a"), (0.5, "0.500"), (3, "3"), (1234567, "1,234,567"), (-0.02, "−0.020")],
)
def test_numbers_in_words(value: float | None, told: str) -> None:
    assert words.number(value) == told


def test_figures_in_words() -> None:
    assert words.figure({"value": 0.5, "ci95": [0.4, 0.6]}) == "0.500 (0.400–0.600)"
    assert words.figure({"value": 0, "ci95": [-0.1, 0.1]}) == "0 (−0.100 to 0.100)"
    assert words.figure({"value": None, "ci95": None}) == "n/a"


def test_a_difference_in_words() -> None:
    assert words.signed(-0.0001) == "+0.000"
    record = {"difference": -0.0411, "ci95": [-0.0722, 0.0011], "p_adjusted": 0.0002}
    assert words.difference(record) == "−0.041 (−0.072 to +0.001), p < 0.001"
    assert words.difference(None) == "n/a"


def test_sizes_in_words() -> None:
    assert words.size(-5) == "0.0 MiB"
    assert words.size(3 * 2**28) == "0.8 GiB"
