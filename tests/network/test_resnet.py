import copy

import pytest
import torch
from torch import nn
from torchvision import models

from dr_cli.errors import UsageError
from dr_cli.network import resnet

ALL = tuple(resnet.ARCHITECTURES)


def with_statistics(network: nn.Module) -> nn.Module:
    """Norms as after training: at their start values a norm that is wrong would not be seen."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.2, 0.6)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def relative_error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize("arch", ALL)
def test_logits_are_torchvisions(arch):
    torch.manual_seed(1)
    reference = with_statistics(getattr(models, arch)(num_classes=5))
    network = resnet.build_resnet(arch).eval()
    network.load_state_dict(reference.state_dict())  # strict: the keys are torchvision's
    batch = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        wanted = reference(batch)
        assert wanted.abs().max() > 1e-3
        assert relative_error(network(batch), wanted) < 1e-5
        # a training pass, too: the norms then use the batch and move their statistics
        assert relative_error(network.train()(batch), reference.train()(batch)) < 1e-5
    for mine, theirs in zip(network.buffers(), reference.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_seed_gives_torchvisions_own_start(arch):
    torch.manual_seed(5)
    network = resnet.build_resnet(arch)
    torch.manual_seed(5)
    reference = getattr(models, arch)(num_classes=5)
    wanted = reference.state_dict()
    assert list(network.state_dict()) == list(wanted)
    assert all(torch.equal(mine, wanted[key]) for key, mine in network.state_dict().items())


@pytest.mark.parametrize("arch", ALL)
def test_counts_are_the_published_ones(arch):
    meta = models.get_model_weights(arch)["IMAGENET1K_V1"].meta
    assert resnet.count_parameters(arch, num_classes=1000) == meta["num_params"]
    multiply_adds = resnet.multiply_adds(arch, 224, num_classes=1000)
    assert multiply_adds / 1e9 == pytest.approx(meta["_ops"], abs=0.001)
    printed = {"resnet18": 1.8, "resnet34": 3.7, "resnet50": 4.1, "resnet101": 7.8}
    assert round(resnet.multiply_adds(arch, 224) / 1e9, 1) == printed.get(arch, 11.5)


@pytest.mark.parametrize(("arch", "size"), [("resnet18", 100), ("resnet50", 77)])
def test_multiply_adds_follow_the_tensors_at_sizes_that_do_not_halve(arch, size):
    total = 0

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += module.weight.numel() * output[0, 0].numel()

    network = resnet.build_resnet(arch).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    assert resnet.multiply_adds(arch, size) == total


@pytest.mark.parametrize(("arch", "channels"), [("resnet34", 512), ("resnet101", 2048)])
def test_each_stage_halves_the_picture(arch, channels):
    sides = []
    with torch.device("meta"), torch.no_grad():
        network = resnet.build_resnet(arch)
        for name in ("conv1", "layer1", "layer2", "layer3", "layer4"):
            network.get_submodule(name).register_forward_hook(
                lambda module, args, output: sides.append(output.shape[2:])
            )
        assert network.features(torch.empty(1, 3, 224, 224)).shape == (1, channels, 7, 7)
    assert sides == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]


def test_forward_is_the_head_on_the_mean_of_the_features():
    network = with_statistics(resnet.build_resnet("resnet18", num_classes=3))
    batch = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        features = network.features(batch)
        assert features.min() >= 0
        torch.testing.assert_close(network(batch), network.fc(features.mean((2, 3))))


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_inference_copy_answers_the_same_without_norms(arch):
    torch.manual_seed(2)
    network = with_statistics(resnet.build_resnet(arch))
    before = copy.deepcopy(network.state_dict())
    frozen = resnet.inference_copy(network.train())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in frozen.modules())
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert frozen.conv1.weight.is_contiguous(memory_format=torch.channels_last)
    batch = torch.randn(2, 3, 128, 128)
    with torch.inference_mode():
        assert relative_error(frozen(batch), network.eval()(batch)) < 1e-5
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"'resnet20'.*resnet18, resnet34.*resnet152"):
        resnet.build_resnet("resnet20")
