import dataclasses

import numpy as np
import pytest
import torch

from dr_cli.network.activation import STRIDE, trace
from dr_cli.network.resnet import build_resnet, inference_copy
from dr_cli.plots.heat import upsample


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(4)
    network = build_resnet("resnet18").eval()
    torch.nn.init.normal_(network.fc.weight, mean=0.5)  # some evidence for every grade
    return network


def exact_weights(network, batch, grade):
    """α of equation 1 of Selvaraju et al. 2017 at the map before the last stage: [N, C]."""
    with torch.no_grad():
        maps = network.before_last(batch)
    with torch.enable_grad():
        logits = network.classify(network.layer4(maps.requires_grad_()))
        (gradient,) = torch.autograd.grad(logits[torch.arange(len(batch)), grade].sum(), maps)
    return gradient.mean((2, 3))


def without_neighbours(network):
    """Its last stage looks at one place at a time, and each of its ReLUs is always open or shut:
    then sums over places lose nothing."""
    torch.manual_seed(5)
    for module in network.layer4.modules():
        if isinstance(module, torch.nn.Conv2d):
            middle = module.weight[:, :, module.padding[0], module.padding[0]].clone()
            module.weight.data.zero_()
            module.weight.data[:, :, module.padding[0], module.padding[0]] = middle
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.bias.data = torch.where(torch.rand(len(module.bias)) < 0.6, 1e4, -1e4)
    return network


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
@torch.no_grad()
def test_the_weights_are_the_mean_gradient_where_gates_do_not_vary(arch):
    torch.manual_seed(4)
    network = without_neighbours(build_resnet(arch).eval())
    batch, grade = torch.randn(3, 3, 64, 64), torch.tensor([0, 4, 2])
    wanted = exact_weights(network, batch, grade)
    assert wanted.abs().max() > 0
    for one in (network, inference_copy(network)):  # folded, too
        found = trace(one, batch).weights(grade) / 2 / 2 / 2 / 2  # 4×4 cells of the map
        assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


def test_it_is_nearly_grad_cam(network):
    batch, grade = torch.randn(4, 3, 160, 128), torch.tensor([0, 4, 2, 3])
    traced = trace(network, batch)
    assert torch.equal(traced.logits, network(batch))
    found, weights = traced.heat(grade), traced.weights(grade)
    assert found.shape == (4, 10, 8)
    assert found.dtype == np.float32
    exact = exact_weights(network, batch, grade)
    for row, wanted in zip(weights, exact, strict=True):
        assert np.corrcoef(row, wanted)[0, 1] > 0.9  # measured: 0.91 to 0.94
    wanted = (weights[:, :, None, None] * traced.maps).sum(1).relu().numpy()
    wanted /= wanted.max((1, 2), keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(trace(network, batch[1:2]).heat(4)[0], found[1], atol=1e-4)


def test_a_map_without_evidence_is_empty(network):
    traced = trace(network, torch.randn(2, 3, 64, 64))
    shut = [[torch.zeros_like(gate) for gate in gates] for gates in traced.gates]
    assert traced.heat(0).max() == 1
    assert dataclasses.replace(traced, gates=shut).heat([0, 1]).max() == 0


def test_a_cell_lies_over_the_pixels_that_it_looks_at(network):
    """Where the network's own gradient says that a cell looks, its heat must lie."""
    size, cell = 448, (11, 16)
    picture = torch.randn(1, 3, size, size, requires_grad=True)
    network.before_last(picture)[0, :, *cell].sum().backward()
    seen = picture.grad[0].square().sum(0).numpy()
    cells = np.zeros((28, 28))
    cells[cell] = 1
    heat = upsample(cells, size, size, STRIDE)
    for axis in (0, 1):
        centre = [(p.sum(axis) * np.arange(size)).sum() / p.sum() for p in (seen, heat)]
        # an ordinary resize misses by 7.5 pixels
        assert centre[0] == pytest.approx(centre[1], abs=3)
