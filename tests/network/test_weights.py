"""Starts of training. torch.hub's cache is one that the test fills, so its real code runs."""

import hashlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from dr_cli.errors import DrError, UsageError
from dr_cli.network.resnet import build_resnet
from dr_cli.network.weights import SILENCE, architecture, load_pretrained, load_start
from tests.builders.listener import Listener

RESNET18 = "resnet18-f37072fd.pth"  # torchvision's file of IMAGENET1K_V1
URL = f"https://download.pytorch.org/models/{RESNET18}"


def thin(arch: str, num_classes: int = 5) -> torch.nn.Module:
    """A network with all of the keys and a sixteenth of the channels: 0.2 MB, not 45."""
    with torch.device("meta"):
        network = build_resnet(arch, num_classes)
    for module in network.modules():
        for name, tensor in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(torch.randn(thinner(tensor.shape))))
        for name, tensor in module.named_buffers(recurse=False):
            number = torch.randn(thinner(tensor.shape)) if tensor.ndim else torch.tensor(7)
            setattr(module, name, number)
    return network


def thinner(shape: torch.Size) -> list[int]:
    return [n // 16 if n % 64 == 0 else n for n in shape]


@pytest.fixture
def imagenet() -> dict[str, torch.Tensor]:
    """A state dict with the names that torchvision publishes: a head of 1000."""
    return thin("resnet18", 1000).state_dict()


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty torch hub cache, and a network (of cables) that is down."""

    def down(*args, **kwargs):
        assert socket.getdefaulttimeout() == SILENCE  # a host that says nothing is given up
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", down)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def unchanged_by(action, network) -> pytest.ExceptionInfo[DrError]:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(DrError) as caught:
        action()
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    return caught


def assert_body(network, state) -> None:
    for key, value in network.state_dict().items():
        if not key.startswith("fc."):
            assert torch.equal(value, state[key]), key


# ------------------------------------------------------------------- ImageNet's weights


def test_pretrained_takes_all_but_the_head_from_the_hub_cache(hub, capsys):
    imagenet = models.resnet18().state_dict()
    torch.save(imagenet, hub / RESNET18)
    torch.manual_seed(0)
    fresh = build_resnet("resnet18").state_dict()
    torch.manual_seed(0)
    network = build_resnet("resnet18", pretrained=True)
    assert_body(network, imagenet)
    assert torch.equal(network.fc.weight, fresh["fc.weight"])
    assert capsys.readouterr().out == ""


def test_a_download_is_announced_and_leaves_stdout_alone(
    hub, imagenet, tmp_path, monkeypatch, capsys
):
    """The file comes over a file: URL, by torch.hub's own downloader, with its checksum."""
    served = tmp_path / "served.pth"
    torch.save(imagenet, served)
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    url = with_checksum(served).as_uri()
    monkeypatch.setattr(models.ResNet18_Weights.IMAGENET1K_V1.value, "url", url)
    listener = Listener()
    network = thin("resnet18")
    load_pretrained(network, "resnet18", listener)
    assert_body(network, imagenet)
    assert url in listener.notes[0]
    assert str(hub) in listener.notes[0]
    assert capsys.readouterr().out == ""
    assert [file.name for file in hub.iterdir()] == [url.rpartition("/")[2]]


def test_a_download_that_breaks_off_leaves_nothing_behind(hub, imagenet, tmp_path, monkeypatch):
    served = tmp_path / "served.pth"
    torch.save(imagenet, served)
    served = with_checksum(served)
    served.write_bytes(served.read_bytes()[:100_000])
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(models.ResNet18_Weights.IMAGENET1K_V1.value, "url", served.as_uri())
    network = thin("resnet18")
    caught = unchanged_by(lambda: load_pretrained(network, "resnet18"), network)
    assert "invalid hash value" in str(caught.value)
    assert list(hub.iterdir()) == []


def with_checksum(file: Path) -> Path:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return file.rename(file.with_name(f"resnet18-{digest[:8]}.pth"))


def test_neither_found_nor_fetched_names_every_way_out(hub):
    network = thin("resnet18")
    caught = unchanged_by(lambda: load_pretrained(network, "resnet18"), network)
    for words in (URL, str(hub), "--weights FILE", "--no-pretrained", "service not known"):
        assert words in str(caught.value)
    assert caught.value.exit_code == 1
    assert list(hub.iterdir()) == []
    assert socket.getdefaulttimeout() is None


def half(state, file):
    torch.save(state, file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def old_half(state, file):
    torch.save(state, file, _use_new_zipfile_serialization=False)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lacking(state, file):
    torch.save({k: v for k, v in state.items() if k != "layer3.1.bn2.weight"}, file)


def misnamed(state, file):
    torch.save({**state, "layer9.0.conv1.weight": torch.ones(1)}, file)


def misshapen(state, file):
    torch.save({**state, "layer2.0.conv1.weight": torch.ones(8, 4, 5, 5)}, file)


def infinite(state, file):
    torch.save({**state, "conv1.weight": state["conv1.weight"] / 0}, file)


def too_large(state, file):
    torch.save({**state, "conv1.weight": state["conv1.weight"].double() * 1e300}, file)


def sparse(state, file):
    torch.save({**state, "conv1.weight": state["conv1.weight"].to_sparse()}, file)


def without_data(state, file):
    torch.save({**state, "conv1.weight": state["conv1.weight"].to("meta")}, file)


def foreign(state, file):
    torch.save(torch.nn.Linear(2, 2).state_dict(), file)


def empty(state, file):
    file.write_bytes(b"")


def a_picture(state, file):
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))


DEFECTS = [
    (half, "damaged, cut off"),
    (old_half, "damaged, cut off"),
    (empty, "damaged, cut off"),
    (a_picture, "damaged, cut off|holds more than numbers"),
    (lacking, r"lacks layer3\.1\.bn2\.weight"),
    (misnamed, r"unknown layer9\.0\.conv1\.weight"),
    (misshapen, r"layer2\.0\.conv1\.weight is \[8, 4, 5, 5\] where .* \[8, 4, 3, 3\]"),
    (infinite, r"not finite, in conv1\.weight"),
    (too_large, r"not finite, in conv1\.weight"),
    (sparse, r"no plain numbers, in conv1\.weight"),
    (without_data, r"no plain numbers, in conv1\.weight"),
    (foreign, "no weights of a ResNet"),
]


@pytest.mark.parametrize(("spoil", "words"), DEFECTS)
def test_a_cached_file_that_is_not_right_is_refused(hub, imagenet, spoil, words):
    spoil(imagenet, hub / RESNET18)
    network = thin("resnet18")
    caught = unchanged_by(lambda: load_pretrained(network, "resnet18"), network)
    caught.match(words)
    assert str(hub / RESNET18) in str(caught.value)
    assert "delete it" in str(caught.value)


# ----------------------------------------------------------------------- --weights FILE


@pytest.mark.parametrize(("spoil", "words"), DEFECTS)
def test_a_given_file_that_is_not_right_is_refused(tmp_path, imagenet, spoil, words):
    file = tmp_path / "start.pth"
    spoil(imagenet, file)
    network = thin("resnet18")
    caught = unchanged_by(lambda: load_start(network, file), network)
    assert isinstance(caught.value, UsageError)
    assert str(file) in str(caught.value)
    caught.match(words)


def wrapped(prefix):
    return lambda state: {prefix + key: value for key, value in state.items()}


@pytest.mark.parametrize(
    "dress",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": wrapped("module.")(state), "optimizer": {"lr": 0.1}},
        wrapped("module."),
        wrapped("_orig_mod."),
        lambda state: {"state_dict": wrapped("model.backbone.")(state)},
        # from before torch 0.4.1
        lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")},
        lambda state: {k: v.half() if v.is_floating_point() else v for k, v in state.items()},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_is_found_however_it_was_saved(tmp_path, imagenet, dress, zipped):
    file = tmp_path / "start.pth.tar"
    torch.save(dress(imagenet), file, _use_new_zipfile_serialization=zipped)
    network = thin("resnet18")
    head = network.fc.weight.clone()
    said = load_start(network, file)
    assert str(file) in said
    assert "head of 1000 is replaced by a new one of 5" in said
    assert torch.equal(network.fc.weight, head)
    for key, value in network.state_dict().items():
        if not key.startswith("fc."):
            torch.testing.assert_close(value, imagenet[key], rtol=1e-3, atol=1e-4)


HEAD = torch.ones(4, 4)


def numbered(state):
    """As a backbone of `nn.Sequential(*resnet.children())` is named."""
    children = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    parts = (key.partition(".") for key in state if not key.startswith("fc."))
    return {f"{children.index(first)}.{rest}": state[f"{first}.{rest}"] for first, _, rest in parts}


@pytest.mark.parametrize(
    ("dress", "left"),
    [
        (lambda state: wrapped("backbone.")(numbered(state)), None),
        (lambda state: {"state_dict": wrapped("model.encoder.")(numbered(state))}, None),
        (lambda state: wrapped("backbone.")(numbered(state)) | {"projection.0.weight": HEAD}, None),
        (
            lambda state: wrapped("encoder_q.")(mlp(state)) | {"queue": HEAD},
            r"2 tensors .* fc\.0\.weight",
        ),
        (
            lambda state: {**state, "projector.weight": HEAD},
            r"1 tensor beside .* projector\.weight",
        ),
    ],
)
def test_what_stands_beside_a_backbone_is_left_out_and_told(tmp_path, imagenet, dress, left):
    torch.save(dress(imagenet), tmp_path / "start.pth")
    network = thin("resnet18")
    said = load_start(network, tmp_path / "start.pth")
    assert_body(network, imagenet)
    if left:
        assert re.search(left, said.partition("; ")[2])


def mlp(state):
    """With MoCo v2's head of two layers in place of one."""
    body = {key: value for key, value in state.items() if not key.startswith("fc.")}
    return body | {"fc.0.weight": HEAD, "fc.2.weight": HEAD}


def test_a_run_is_taken_with_its_head(tmp_path):
    run = tmp_path / "resnet18-mine"
    run.mkdir()
    state = thin("resnet18").state_dict()
    save_file(state, run / "model.safetensors", {"arch": '"resnet18"'})
    for source in (run, run / "model.safetensors", str(run)):
        network = thin("resnet18")
        assert "head included" in load_start(network, source)
        assert all(torch.equal(v, state[k]) for k, v in network.state_dict().items())


def test_a_body_without_a_head_is_enough(tmp_path, imagenet):
    file = tmp_path / "body.safetensors"
    save_file({k: v for k, v in imagenet.items() if not k.startswith("fc.")}, file)
    network = thin("resnet18")
    assert "no head" in load_start(network, file)
    assert_body(network, imagenet)


def test_weights_of_eight_bits_are_numbers_too(tmp_path, imagenet):
    file = tmp_path / "start.pth"
    torch.save({**imagenet, "conv1.weight": imagenet["conv1.weight"].to(torch.float8_e4m3fn)}, file)
    network = thin("resnet18")
    load_start(network, file)
    torch.testing.assert_close(network.conv1.weight, imagenet["conv1.weight"], rtol=0.1, atol=0.01)


def test_safetensors_may_have_a_prefix_as_any_other(tmp_path, imagenet):
    file = tmp_path / "start.safetensors"
    save_file({f"backbone.{key}": value for key, value in imagenet.items()}, file)
    network = thin("resnet18")
    load_start(network, file)
    assert_body(network, imagenet)


def test_a_safetensors_file_cut_off_is_refused(tmp_path, imagenet):
    file = tmp_path / "start.safetensors"
    save_file(imagenet, file)
    file.write_bytes(file.read_bytes()[:100_000])
    network = thin("resnet18")
    unchanged_by(lambda: load_start(network, file), network).match("damaged, cut off")


def test_another_architecture_is_named(tmp_path, imagenet):
    file = tmp_path / "start.pth"
    torch.save(imagenet, file)
    network = thin("resnet50")
    unchanged_by(lambda: load_start(network, file), network).match(
        r"weights of resnet18, not of resnet50: use --arch resnet18$"
    )


@pytest.mark.parametrize("arch", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_an_architecture_is_known_by_its_keys(arch):
    with torch.device("meta"):
        assert architecture(build_resnet(arch).state_dict()) == arch
    assert architecture({"features.0.weight": torch.ones(1)}) is None


def test_nothing_in_a_file_is_executed(tmp_path):
    class Intruder:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    file = tmp_path / "start.pth"
    torch.save({"state_dict": {}, "extra": Intruder()}, file)
    network = thin("resnet18")
    unchanged_by(lambda: load_start(network, file), network).match("was not opened")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("make", [False, True])
def test_a_missing_file_and_a_run_without_weights(tmp_path, make):
    source = tmp_path / "run"
    if make:
        source.mkdir()
    network = thin("resnet18")
    caught = unchanged_by(lambda: load_start(network, source), network)
    assert caught.value.exit_code == 2
    caught.match("--weights: no run with weights at" if make else "--weights: no file or run at")


def test_the_way_of_a_photograph_imports_no_heavy_package():
    program = (
        "import sys, dr_cli.network.grader, dr_cli.network.weights, dr_cli.plots.heat;"
        "import dr_cli.device, dr_cli.training.losses;"
        "heavy = {'torchvision', 'pandas', 'sklearn', 'matplotlib', 'seaborn', 'torch._dynamo'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True
    )
    assert done.stdout.strip() == "[]"
