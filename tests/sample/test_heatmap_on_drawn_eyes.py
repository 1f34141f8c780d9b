"""Heatmaps against lesions that are known because they were drawn."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.ndimage import maximum_filter

from dr_cli.photographs.crop import Preprocessing
from dr_cli.sample import drawn_set as sample


def _script() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "benchmarks" / "heatmaps.py"
    spec = importlib.util.spec_from_file_location("heatmaps_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


heatmaps = _script()


@pytest.fixture
def field() -> np.ndarray:
    field = np.zeros((200, 200), bool)
    field[:, 50:150] = True
    return field


def test_a_map_on_the_lesions_finds_them_all(field: np.ndarray) -> None:
    lesions = np.zeros_like(field)
    lesions[:20, 50:150] = True  # a tenth of the field
    found = heatmaps.shares(lesions.astype(float), lesions, field)
    assert found.top_on == found.top_near == 1
    assert found.field_on == pytest.approx(0.1)
    assert found.field_near == pytest.approx((20 + 32) / 200)


def test_a_map_elsewhere_finds_none(field: np.ndarray) -> None:
    lesions = np.zeros_like(field)
    lesions[:20, 50:150] = True
    heat = np.linspace(0, 1, 200)[:, None].repeat(200, axis=1)  # hottest at the foot
    found = heatmaps.shares(heat, lesions, field)
    assert found.top_on == found.top_near == 0
    assert found.field_on == pytest.approx(0.1)


def test_what_lies_outside_the_field_counts_nowhere(field: np.ndarray) -> None:
    lesions = np.zeros_like(field)
    lesions[:, :50] = True
    heat = np.random.default_rng(0).random(field.shape)
    assert heatmaps.shares(heat, lesions, field) == (0, 0, 0, 0)


def test_a_map_that_knows_nothing_does_as_a_random_place(field: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    lesions = rng.random(field.shape) < 0.3
    found = heatmaps.shares(rng.random(field.shape), lesions, field)
    assert found.top_on == pytest.approx(found.field_on, abs=0.04)  # 3.9 standard errors


@pytest.mark.parametrize("size", [160, 224, 288])
@pytest.mark.parametrize("eye", sample.EYES)
def test_the_masks_lie_over_the_crop(size: int, eye: sample.Eye) -> None:
    """The same eye drawn with grades 4 and 0 differs in its lesions and a shade of its ground."""
    ill, healthy = (
        heatmaps.crops(sample.draw(3, 7, eye, grade), Preprocessing(size)) for grade in (4, 0)
    )
    pixels, lesions, field = ill
    assert lesions.shape == field.shape == (size, size)
    assert not healthy[1].any()
    assert 0.5 < field.mean() < 0.8  # a disc, perhaps cut, in its square
    changed = np.abs(pixels.astype(int) - healthy[0]).sum(axis=0)
    near = maximum_filter(lesions, 5)
    assert changed[near].mean() > 2 * changed[field & ~near].mean()
    caught = {
        (y, x): changed[np.roll(lesions, (y, x), (0, 1))].sum()
        for y in range(-4, 5)
        for x in range(-4, 5)
    }
    best = max(caught, key=caught.__getitem__)
    assert max(map(abs, best)) <= 1, f"the masks fit better {best} pixels away"
