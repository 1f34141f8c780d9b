import numpy as np
import pytest
import torch

from dr_cli.network.activation import STRIDE, Trace, trace
from dr_cli.network.resnet import build_resnet
from dr_cli.plots.heat import upsample


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(4)
    network = build_resnet("resnet18").eval()
    torch.nn.init.normal_(network.fc.weight, mean=0.5)  # some evidence for every grade
    return network


def grad_cam(network, batch, grade):
    """Selvaraju et al. 2017, equations 1 and 2, of layer3, by hooks and a whole pass: [N, h, w]."""
    kept = []
    handle = network.layer3.register_forward_hook(lambda *a: kept.append(a[2]))
    with torch.enable_grad():
        logits = network(batch.clone().requires_grad_())
    handle.remove()
    (maps,) = kept
    maps.retain_grad()
    logits[torch.arange(len(batch)), grade].sum().backward()
    importance = maps.grad.mean((2, 3), keepdim=True)  # α of equation 1
    return (importance * maps).sum(1).relu().detach().numpy()


def test_it_is_grad_cam_up_to_scale(network):
    batch, grade = torch.randn(4, 3, 160, 128), torch.tensor([0, 4, 2, 3])
    wanted = grad_cam(network, batch, grade)
    traced = trace(network, batch)
    assert torch.equal(traced.logits, network(batch))
    found = traced.heat(grade)
    assert found.shape == (4, 10, 8)
    assert found.dtype == np.float32
    assert wanted.max((1, 2)).min() > 0  # maps without evidence would prove nothing
    wanted /= wanted.max((1, 2), keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_allclose(trace(network, batch[1:2]).heat(4)[0], found[1], atol=1e-4)


def test_a_map_without_evidence_is_empty():
    maps = torch.rand(2, 3, 4, 4).requires_grad_()
    weight = torch.tensor([[1.0, 1, 1], [-1, -1, -1]])
    pooled = maps.mean((2, 3))
    heat = Trace(maps, pooled @ weight.T, pooled).heat([0, 1])
    assert heat[0].max() == 1
    assert heat[1].max() == 0


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
