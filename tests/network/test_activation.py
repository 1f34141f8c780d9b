import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image

from dr_cli.network import activation as heatmap
from dr_cli.network.resnet import build_resnet


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(4)
    network = build_resnet("resnet18").eval()
    torch.nn.init.normal_(network.fc.weight, mean=0.5)  # some evidence for every grade
    return network


def grad_cam(network, batch, grade):
    """Selvaraju et al. 2017, equations 1 and 2, by a real backward pass: [N, h, w], >= 0."""
    features = network.features(batch).detach().requires_grad_()
    logits = network.fc(features.mean((2, 3)))
    logits[torch.arange(len(batch)), grade].sum().backward()
    importance = features.grad.mean((2, 3), keepdim=True)  # α of equation 1
    return (importance * features).sum(1).relu().detach().numpy()


def test_it_is_grad_cam_up_to_scale(network):
    batch, grade = torch.randn(4, 3, 160, 128), torch.tensor([0, 4, 2, 3])
    wanted = grad_cam(network, batch, grade)
    found = heatmap.class_activation(network, batch, grade)
    assert found.shape == (4, 5, 4)
    assert found.dtype == np.float32
    assert wanted.max((1, 2)).min() > 0  # maps without evidence would prove nothing
    wanted /= wanted.max((1, 2), keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    one = heatmap.class_activation(network, batch[1:2], 4)
    np.testing.assert_allclose(one[0], found[1], atol=1e-4)


def test_a_map_without_evidence_is_empty():
    features = torch.rand(2, 3, 4, 4)
    weight = torch.tensor([[1.0, 1, 1], [-1, -1, -1]])
    maps = heatmap.activation(features, weight, torch.tensor([0, 1]))
    assert maps[0].max() == 1
    assert maps[1].max() == 0


def test_a_cell_lies_over_the_pixels_that_it_looks_at(network):
    """Where the network's own gradient says that a cell looks, its heat must lie."""
    size, cell = 448, (5, 8)
    picture = torch.randn(1, 3, size, size, requires_grad=True)
    network.features(picture)[0, :, *cell].sum().backward()
    seen = picture.grad[0].square().sum(0).numpy()
    cells = np.zeros((14, 14))
    cells[cell] = 1
    heat = heatmap.upsample(cells, size, size)
    for axis in (0, 1):
        centre = [(p.sum(axis) * np.arange(size)).sum() / p.sum() for p in (seen, heat)]
        # an ordinary resize misses by 15.5 pixels
        assert centre[0] == pytest.approx(centre[1], abs=4)


def test_upsampling_is_exact_on_cells_and_linear_between_them():
    cells = np.array([[0.0, 1, 0], [1, 0, 0.5]])
    heat = heatmap.upsample(cells, 64, 96)
    assert heat.shape == (64, 96)
    assert heat[0, 0] == 0
    assert heat[0, 32] == 1
    assert heat[32, 64] == 0.5
    assert heat[0, 8] == pytest.approx(0.25)
    assert heat[16, 0] == pytest.approx(0.5)
    assert heat[63, 95] == 0.5  # beyond the last cell, that cell


def test_the_colours_are_viridis():
    wanted = np.array(colormaps["viridis"].colors) * 255
    found = heatmap.colours()
    assert found.shape == (256, 3)
    assert np.abs(found - wanted).max() < 8
    lightness = found @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -0.5).all()  # rounding to whole numbers may hold it back


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_the_overlay_colours_evidence_and_leaves_the_rest(order):
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (128, 160, 3), dtype=np.uint8)
    cells = np.zeros((4, 5), np.float32)
    cells[1, 3] = 1
    shown = heatmap.overlay(picture.transpose(order), cells, strongest=0.5)
    assert isinstance(shown, Image.Image)
    assert shown.mode == "RGB"
    assert shown.size == (160, 128)
    pixels = np.asarray(shown).astype(float)
    assert np.array_equal(pixels[:, :60], picture[:, :60])  # no evidence: untouched
    yellow = heatmap.colours()[-1]
    assert pixels[32, 96] == pytest.approx((picture[32, 96] + yellow.astype(float)) / 2, abs=1)


def test_an_overlay_at_full_strength_hides_nothing_where_there_is_no_heat():
    picture = np.full((3, 64, 64), 77, np.uint8)
    shown = heatmap.overlay(picture, np.zeros((2, 2), np.float32), strongest=1)
    assert (np.asarray(shown) == 77).all()
