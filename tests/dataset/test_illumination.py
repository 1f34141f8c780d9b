"""Light taken out: no camera, no shade at the rim, and no border comes through; lesions do."""

import numpy as np
import pytest
import torch

from dr_cli.dataset import illumination
from dr_cli.dataset.augment import LEVELS, augment, normalise
from dr_cli.dataset.illumination import even_out
from dr_cli.photographs.crop import Preprocessing, from_image
from dr_cli.sample.drawn_set import draw

WAY = Preprocessing(96, illumination="evened")


@pytest.fixture(scope="module")
def eye():
    """A drawn eye with lesions, uint8 [1, 3, 96, 96]."""
    from PIL import Image

    crop = from_image(Image.fromarray(draw(0, 3, "left", 3, 128).pixels), Preprocessing(96))
    return torch.from_numpy(crop.pixels)[None]


def test_it_is_the_distance_from_the_local_mean_in_local_deviations(eye):
    """Against the sums written out pixel by pixel, where both Gaussians are computed whole."""
    values = eye[0].double().numpy()
    field = values.max(0) >= illumination.DARK
    padded = np.pad(field, 1, constant_values=True)
    windows = [padded[y : y + 96, x : x + 96] for y in range(3) for x in range(3)]
    field = np.logical_and.reduce(windows)
    steps = (np.arange(96) + 0.5) / 96

    def mean(of, reach):
        kernel = np.exp(-((steps[:, None] - steps) ** 2) / (2 * reach**2))
        inside = kernel @ field @ kernel.T
        return kernel @ (of * field) @ kernel.T / inside

    found, inner = even_out(eye)[0].numpy(), field & (np.hypot(*np.mgrid[-47.5:48, -47.5:48]) < 40)
    for channel, result in zip(values, found, strict=True):
        away = (channel - mean(channel, illumination.REACH)) * field
        deviation = np.sqrt(mean(away**2, 2 * illumination.REACH))
        expected = away / (deviation + illumination.QUIET)
        assert np.abs(result - expected)[inner].max() < 0.15
        assert np.corrcoef(result[inner], expected[inner])[0, 1] > 0.999
    assert not found[:, ~field].any()


def test_another_camera_gives_nearly_the_same_picture(eye):
    """Redder, with light falling off to one side: 9 levels of 255 apart before, and after, in
    deviations, of which each channel has about 1, a tenth."""
    shade = torch.linspace(0.75, 1.15, 96)
    cast = torch.tensor([1.1, 0.85, 0.8])[:, None, None]
    other = (eye * cast * shade).clamp(0, 255).to(torch.uint8)
    field = (eye.amax(1) > 30) & (other.amax(1) > 30)
    before = (eye.float() - other.float()).abs().mean(1)[field].mean()
    after = (even_out(eye) - even_out(other)).abs().mean(1)[field].mean()
    assert before > 8
    assert after < 0.1


def test_a_lesion_stands_out_by_its_contrast_wherever_it_lies():
    pixels = torch.full((1, 3, 96, 96), 120, dtype=torch.uint8)
    pixels[..., 48:] = 60  # a dark half
    for x in (20, 76):
        pixels[..., 46:49, x : x + 3] = (pixels[..., 46:49, x : x + 3] * 0.8).to(torch.uint8)
    evened = even_out(pixels)
    assert evened[..., 47, 21].max() < -1
    assert evened[..., 47, 77].max() < -1
    assert evened[..., 10, 10].abs().max() < 0.2


def test_black_stays_without_a_voice(eye):
    assert not even_out(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).any()
    wide = torch.zeros(1, 3, 192, 192, dtype=torch.uint8)
    wide[..., 48:144, 48:144] = eye
    found = even_out(wide)[..., 48:144, 48:144]
    assert not even_out(wide)[..., :40, :].any()
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("level", LEVELS)
def test_a_picture_is_the_same_in_every_batch(eye, level):
    pixels = torch.cat([eye, eye.flip(3), 255 - eye, eye // 2])
    ids = np.array([7, 1, 90, 3])
    whole = augment(pixels, WAY, level, 0, 1, ids)
    alone = [augment(pixels[[k]], WAY, level, 0, 1, ids[[k]])[0] for k in range(4)]
    assert torch.equal(whole, torch.stack(alone))
    assert torch.equal(normalise(pixels, WAY), even_out(pixels))
