"""Augmentation: right in each effect, and the same whatever batch, thread or worker."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dr_cli.dataset import augment as module
from dr_cli.dataset.augment import LEVELS, SCALE, augment, normalise
from dr_cli.photographs.crop import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

MEAN = torch.tensor(IMAGENET_MEAN)[:, None, None]
STD = torch.tensor(IMAGENET_STD)[:, None, None]

WAY = Preprocessing(8)


def pictures(n=8, height=33, width=33):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator)


def disc(n, height=128, width=128, radius=40):
    """White on black, in the middle."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (x - (width - 1) / 2) ** 2 + (y - (height - 1) / 2) ** 2 <= radius**2
    return (inside * 255).to(torch.uint8).expand(n, 3, height, width).contiguous()


def test_none_is_imagenets_normalisation():
    pixels = pictures()
    expected = (pixels.float() / 255 - MEAN) / STD
    for result in (normalise(pixels, WAY), augment(pixels, WAY, "none", 0, 0, np.arange(8))):
        assert result.dtype == torch.float32
        assert torch.allclose(result, expected, atol=1e-5)


def test_normalise_leaves_its_input_alone():
    pixels = pictures()
    before = pixels.clone()
    for level in LEVELS:
        augment(pixels, WAY, level, 0, 0, np.arange(8))
    assert torch.equal(pixels, before)


def test_flips_are_exact_and_all_four_occur_equally_often():
    pixels = pictures(1)
    four = [normalise(pixels.flip(axes), WAY)[0] for axes in ([], [3], [2], [2, 3])]
    results = augment(pixels.expand(400, -1, -1, -1), WAY, "flip", 0, 0, np.arange(400))
    counts = [sum(torch.equal(result, way) for result in results) for way in four]
    assert sum(counts) == 400
    assert min(counts) > 70


@pytest.mark.parametrize(
    ("level", "shape"),
    [(level, (33, 33)) for level in LEVELS]
    + [(level, shape) for level in LEVELS if level != "turn" for shape in [(64, 40), (17, 50)]],
)
def test_the_result_does_not_depend_on_the_batch_or_the_threads(level, shape):
    pixels, ids = pictures(7, *shape), np.array([5, 900, 3, 12, 8, 44, 1])
    whole = augment(pixels, WAY, level, 1, 2, ids)
    alone = torch.cat(
        [augment(pixels[k : k + 1], WAY, level, 1, 2, ids[k : k + 1]) for k in range(7)]
    )
    assert torch.equal(whole, alone)
    order = [6, 2, 0, 3, 1, 5, 4]
    assert torch.equal(whole[order], augment(pixels[order], WAY, level, 1, 2, ids[order]))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = augment(pixels, WAY, level, 1, 2, ids)
        torch.set_num_threads(3)
        assert torch.equal(one, augment(pixels, WAY, level, 1, 2, torch.from_numpy(ids)))
    finally:
        torch.set_num_threads(threads)


def test_a_square_lies_in_each_of_its_eight_ways_equally_often():
    pixels = pictures(1)
    turned = [pixels.rot90(k, (2, 3)) for k in range(4)]
    eight = [normalise(each, WAY)[0] for each in (*turned, *(one.flip(3) for one in turned))]
    results = augment(pixels.expand(800, -1, -1, -1), WAY, "turn", 0, 0, np.arange(800))
    counts = [sum(torch.equal(result, way) for result in results) for way in eight]
    assert sum(counts) == 800
    assert min(counts) > 70


@pytest.mark.parametrize("level", ["flip", "turn", "standard", "strong"])
def test_seed_epoch_and_sample_each_change_the_result(level):
    pixels = pictures(1).expand(16, -1, -1, -1)
    ids = np.arange(16)
    first = augment(pixels, WAY, level, 0, 0, ids)
    for other in ((1, 0, ids), (0, 1, ids), (0, 0, ids + 16)):
        assert not torch.equal(first, augment(pixels, WAY, level, *other))


@pytest.mark.parametrize("shape", [(128, 128), (160, 120), (120, 160)])
def test_a_circle_stays_a_circle_of_the_promised_size(shape):
    """Its area changes by the square of the scale, its width and height alike."""
    n = 64
    result = augment(disc(n, *shape), WAY, "standard", 0, 0, np.arange(n))
    lit = result[:, 0] > result[:, 0].amin(dim=(1, 2), keepdim=True) + 1
    areas = lit.sum(dim=(1, 2)).float() / lit.new_tensor(3.14159 * 40**2, dtype=torch.float32)
    assert areas.min() > 0.97 * SCALE[0] ** 2
    assert areas.max() < 1.03 * SCALE[1] ** 2
    assert areas.min() < 0.85  # and the range is used
    assert areas.max() > 1.2
    widths, heights = lit.any(dim=1).sum(dim=1), lit.any(dim=2).sum(dim=1)
    assert (widths - heights).abs().max() <= 2


def test_turning_goes_all_the_way_round():
    """A dot to the right of the middle is seen in every direction."""
    pixels = torch.zeros(200, 3, 65, 65, dtype=torch.uint8)
    pixels[:, :, 30:35, 50:55] = 255
    result = augment(pixels, WAY, "standard", 0, 0, np.arange(200))
    result = result[:, 0] - result[:, 0].amin(dim=(1, 2), keepdim=True)
    places = torch.arange(65) - 32.0
    total = result.sum(dim=(1, 2))
    x, y = (result.sum(1) * places).sum(1) / total, (result.sum(2) * places).sum(1) / total
    sectors = ((torch.atan2(y, x) / torch.pi + 1) * 4).long() % 8
    assert torch.bincount(sectors, minlength=8).min() > 8
    distance = torch.hypot(x, y)
    assert distance.min() > 20 * SCALE[0] - 0.08 * 65
    assert distance.max() < 20 * SCALE[1] + 0.08 * 65


@pytest.mark.parametrize("level", ["standard", "strong"])
def test_what_comes_in_from_outside_is_black_as_the_border_is(level):
    """White up to its edge: the corners that turning uncovers equal a black picture's pixels."""
    ids = np.arange(40)
    white = torch.full((40, 3, 48, 48), 255, dtype=torch.uint8)
    black = augment(torch.zeros_like(white), WAY, level, 0, 0, ids)
    assert (black.amax(dim=(2, 3)) - black.amin(dim=(2, 3))).max() < 1e-6
    result = augment(white, WAY, level, 0, 0, ids)
    assert torch.isclose(result.amin(dim=(2, 3)), black[:, :, 0, 0]).float().mean() > 0.9


def channel_gains(level):
    """How much each channel's contrast between two colours changed, [N, 3]."""
    pixels = torch.zeros(100, 3, 64, 64, dtype=torch.uint8)
    inside = disc(1, 64, 64, 24)[0, 0] > 0
    colour = torch.tensor([180, 100, 40], dtype=torch.uint8)
    pixels[:, :, inside] = colour[:, None]
    result = augment(pixels, WAY, level, 0, 0, np.arange(100))
    difference = result[:, :, 32, 32] - result.amin(dim=(2, 3))
    return difference * STD[:, 0, 0] * 255 / colour


def test_standard_changes_brightness_but_no_colour_and_strong_both():
    standard, strong = channel_gains("standard"), channel_gains("strong")
    assert (standard.amax(1) - standard.amin(1)).max() < 1e-4
    assert 0.67 - 1e-3 < standard.min() < 0.8
    assert 1.25 < standard.max() < 1.492 + 1e-3  # exp(0.2 + 0.2)
    spread = strong.amax(1) / strong.amin(1)
    assert spread.min() > 1.01
    assert 1.3 < spread.max() < 3


def test_an_identity_is_the_picture_itself(monkeypatch):
    """With the draws that mean no change, all that is left is normalisation."""
    draws = np.full((1, 12), 0.5)
    draws[:, 2] = 0  # no turn
    draws[:, 3] = np.log(1 / SCALE[0]) / np.log(SCALE[1] / SCALE[0])
    monkeypatch.setattr(module.randomness, "uniform", lambda *_: draws)
    pixels = pictures(1)
    for level in ("flip", "standard", "strong"):
        assert torch.allclose(
            augment(pixels, WAY, level, 0, 0, [0]), normalise(pixels, WAY), atol=1e-4
        )


def test_the_sampling_grid_is_torchs_own():
    draws = np.random.default_rng(0).random((5, 12))
    pixels = pictures(5, 40, 56)
    matrices = torch.from_numpy(module._matrices(draws, 40 / 56))
    grid = F.affine_grid(matrices, [5, 3, 40, 56], align_corners=False)
    expected = F.grid_sample(pixels.float(), grid, align_corners=False)
    assert torch.allclose(module._move(pixels.float(), draws), expected, atol=0.02)


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="'wild' is none of none, flip, turn, standard, strong"):
        augment(pictures(), WAY, "wild", 0, 0, np.arange(8))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("level", LEVELS)
def test_a_gpu_gives_what_the_processor_gives(level):
    pixels, ids = pictures(6, 64, 64), np.arange(6)
    there = augment(pixels.cuda(), level, 0, 0, ids)
    assert there.is_cuda
    assert torch.allclose(there.cpu(), augment(pixels, WAY, level, 0, 0, ids), atol=2e-3)


@pytest.mark.parametrize("level", LEVELS)
def test_the_records_own_mean_and_deviation_are_used(level):
    """Weights made with another normalisation would else be graded wrongly in silence."""
    pixels = torch.full((2, 3, 8, 8), 51, dtype=torch.uint8)  # 0.2 of 1
    other = Preprocessing(8, mean=(0.1, 0.2, 0.3), std=(0.5, 1.0, 0.5))
    middle = augment(pixels, other, level, 0, 0, [0, 1])[:, :, 4, 4]
    if level in ("none", "flip"):
        assert middle == pytest.approx(torch.tensor([[0.2, 0.0, -0.2]] * 2).numpy(), abs=1e-6)
    else:  # brighter or darker, about that mean
        assert not torch.allclose(middle, augment(pixels, WAY, level, 0, 0, [0, 1])[:, :, 4, 4])
