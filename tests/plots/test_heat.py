import subprocess
import sys

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from dr_cli.plots import heat


def test_upsampling_is_exact_on_cells_and_linear_between_them():
    cells = np.array([[0.0, 1, 0], [1, 0, 0.5]])
    shown = heat.upsample(cells, 64, 96, 32)
    assert shown.shape == (64, 96)
    assert shown[0, 0] == 0
    assert shown[0, 32] == 1
    assert shown[32, 64] == 0.5
    assert shown[0, 8] == pytest.approx(0.25)
    assert shown[16, 0] == pytest.approx(0.5)
    assert shown[63, 95] == 0.5  # beyond the last cell, that cell


def test_the_colours_are_viridis():
    wanted = np.array(colormaps["viridis"].colors) * 255
    found = heat.colours()
    assert found.shape == (256, 3)
    assert np.abs(found - wanted).max() < 8
    lightness = found @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -0.5).all()  # rounding to whole numbers may hold it back


def test_the_overlay_colours_evidence_and_leaves_the_rest():
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (128, 160, 3), dtype=np.uint8)
    cells = np.zeros((4, 5), np.float32)
    cells[1, 3] = 1
    shown = heat.overlay(picture.transpose(2, 0, 1), cells, 32)
    assert isinstance(shown, Image.Image)
    assert shown.mode == "RGB"
    assert shown.size == (160, 128)
    pixels = np.asarray(shown).astype(float)
    assert np.array_equal(pixels[:, :60], picture[:, :60])  # no evidence: untouched
    yellow = heat.colours()[-1].astype(float)
    wanted = (1 - heat.STRONGEST) * picture[32, 96] + heat.STRONGEST * yellow
    assert pixels[32, 96] == pytest.approx(wanted, abs=1)


def test_an_overlay_hides_nothing_where_there_is_no_heat():
    picture = np.full((3, 64, 64), 77, np.uint8)
    shown = heat.overlay(picture, np.zeros((2, 2), np.float32), 32)
    assert (np.asarray(shown) == 77).all()


def test_colours_need_no_torch():
    code = "import sys, dr_cli.plots.heat; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


def test_no_heat_lies_on_the_black_round_the_field():
    rows, columns = np.mgrid[:128, :128]
    disc = (rows - 64) ** 2 + (columns - 64) ** 2 < 50**2
    picture = np.where(disc, 180, 3).astype(np.uint8)
    picture[60:70, 60:70] = 0  # a dark place within it
    pixels = np.stack([picture] * 3)
    assert np.array_equal(heat.field_of(pixels), disc)
    cells = np.full((8, 8), 0.2)
    cells[0, 0] = 1  # the strongest lies outside
    shown = np.asarray(heat.overlay(pixels, cells, 16)).transpose(2, 0, 1)
    beyond = (rows - 64) ** 2 + (columns - 64) ** 2 > 57**2  # the rim is told to some pixels
    assert np.array_equal(shown[:, beyond], pixels[:, beyond])
    assert (shown[:, disc] != pixels[:, disc]).any()
    wanted = heat.STRONGEST * heat.colours()[-1] + (1 - heat.STRONGEST) * 180
    assert shown[:, 100, 64] == pytest.approx(wanted, abs=2)  # the strongest within is full


def test_a_dim_picture_has_a_field_and_a_black_one_has_none():
    pixels = np.zeros((3, 32, 32), np.uint8)
    assert not heat.field_of(pixels).any()
    pixels[:, 8:24, 8:24] = 20
    assert heat.field_of(pixels).sum() == 256


@pytest.mark.parametrize("size", [(64, 64), (409, 341)])
def test_a_map_lies_where_its_cells_look(size):
    """Its brightest pixel is the strongest cell's, to the pixel, and it falls off evenly."""
    width, height = size
    cells = np.zeros((3, 3), np.float32)
    cells[1, 1] = 1
    pitch = width / 3
    shown = np.asarray(heat.overlay(np.full((3, height, width), 90, np.uint8), cells, pitch))
    changed = np.abs(shown.astype(int) - 90).sum(axis=2)
    over = changed > 0
    middle = [float(np.flatnonzero(over.any(axis=axis))[[0, -1]].mean()) for axis in (0, 1)]
    assert middle == pytest.approx([pitch, pitch], abs=2)
    reach = [int(over.any(axis=axis).sum()) for axis in (0, 1)]
    assert reach[0] == pytest.approx(2 * pitch, abs=6)
    assert reach[1] == pytest.approx(min(2 * pitch, height), abs=6)
