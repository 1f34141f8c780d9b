import itertools
import platform
import subprocess
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from dr_cli import device, machine
from dr_cli.errors import DrError, UsageError


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    """Threads and switches of torch are the process's own: put them back."""
    threads = torch.get_num_threads()
    torch.use_deterministic_algorithms(False)  # loads what cannot be loaded with a feigned GPU
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def _no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU that answers questions and computes nothing; a test may change it."""
    card = SimpleNamespace(capability=(9, 0), trouble=None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tested GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: card.capability)
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or card.capability >= (8, 0),
    )
    monkeypatch.setattr(device, "_cuda_trouble", lambda: card.trouble)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.get_float32_matmul_precision()
    yield card
    torch.set_float32_matmul_precision(before)


def cpu_with(monkeypatch, **probes):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, partial(probes.get, name, False))


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize("probe", ["_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_a_cpu_computes_bf16_where_its_instructions_do(monkeypatch, probe):
    cpu_with(monkeypatch, **{probe: True})
    chosen = device.choose()
    assert (chosen.device.type, chosen.precision) == ("cpu", "bf16")
    assert "bf16 instructions" in chosen.reason
    assert chosen.warning is None


@pytest.mark.usefixtures("_no_gpu")
def test_another_cpu_computes_fp32_and_warns_of_anything_else(monkeypatch):
    cpu_with(monkeypatch)
    chosen = device.choose()
    assert (chosen.device.type, chosen.precision, chosen.warning) == ("cpu", "fp32", None)
    assert "no GPU" in chosen.reason
    assert "no bf16" in chosen.reason
    for precision in ("bf16", "fp16"):
        asked = device.choose("cpu", precision)
        assert asked.precision == precision
        assert "--precision fp32" in (asked.warning or "")


@pytest.mark.usefixtures("_no_gpu")
def test_a_torch_without_the_probes_still_answers(monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert device.choose().precision == "fp32"


@pytest.mark.usefixtures("_no_gpu")
@pytest.mark.parametrize("kind", ["cuda", "mps"])
def test_a_device_that_is_not_here_is_refused(kind):
    with pytest.raises(UsageError, match=f"--device {kind}: .*--device auto or cpu"):
        device.choose(kind)


@pytest.mark.parametrize(
    ("asked", "words"),
    [(("gpu", "auto"), "auto, cpu, cuda, mps"), (("cpu", "int8"), "auto, fp32, bf16, fp16")],
)
def test_an_unknown_value_is_refused_with_the_known_ones(asked, words):
    with pytest.raises(UsageError, match=words):
        device.choose(*asked)


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((9, 0), "bf16"), ((8, 0), "bf16"), ((7, 5), "fp16"), ((6, 1), "fp32")],
)
def test_a_gpu_computes_what_it_has_units_for(gpu, capability, precision):
    gpu.capability = capability
    chosen = device.choose()
    assert (chosen.device, chosen.precision) == (torch.device("cuda", 0), precision)
    assert "Tested GPU" in chosen.reason
    assert chosen.warning is None
    assert torch.backends.cudnn.benchmark
    assert torch.get_float32_matmul_precision() == "high"  # TF32
    asked = device.choose("cuda", "bf16")
    assert asked.precision == "bf16"
    assert (asked.warning is None) == (precision == "bf16")


def test_a_gpu_that_fails_at_its_first_sum(gpu):
    gpu.trouble = "no kernel image is available"
    chosen = device.choose()
    assert chosen.device.type == "cpu"
    assert "no kernel image" in (chosen.warning or "")
    assert "no fast fp16" in (device.choose(precision="fp16").warning or "")
    with pytest.raises(DrError, match=r"no kernel image.*--device cpu") as caught:
        device.choose("cuda")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_autocast_computes_in_the_precision_chosen(precision):
    processor = device.choose("cpu", precision)
    layer, batch = torch.nn.Conv2d(3, 4, 3), torch.randn(1, 3, 8, 8)
    with processor.autocast():
        assert layer(batch).dtype == processor.dtype == device.DTYPES[precision]


def test_only_fp16_scales_its_gradients():
    enabled = {p: device.choose("cpu", p).scaler().is_enabled() for p in device.DTYPES}
    assert enabled == {"fp32": False, "bf16": False, "fp16": True}


def test_threads_follow_the_cores_that_this_process_may_use(monkeypatch):
    monkeypatch.setattr(machine, "cores", lambda: 6)
    assert device.set_threads() == 6
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    assert device.set_threads() == 1  # a person's own word


def test_deterministic_training_gives_the_same_bits(monkeypatch):
    from dr_cli.network.resnet import build_resnet
    from dr_cli.training.losses import RULES, make_loss

    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    device.deterministic(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark

    def gradients():
        torch.manual_seed(0)
        network = build_resnet("resnet18")
        logits = network(torch.randn(2, 3, 64, 64))
        losses = [make_loss(name)(logits, torch.tensor([1, 3])) for name in RULES]
        torch.stack(losses).sum().backward()
        return [parameter.grad for parameter in network.parameters()]

    pairs = zip(gradients(), gradients(), strict=True)
    assert all(itertools.starmap(torch.equal, pairs))
    device.deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_real_gpu_is_chosen_and_computes():
    processor = device.choose()
    assert processor.device.type == "cuda"
    assert (device.memory(processor) or 0) > 2**20
    layer = torch.nn.Conv2d(3, 4, 3).to(processor.device)
    with processor.autocast():
        out = layer(torch.randn(1, 3, 8, 8, device=processor.device))
    assert out.dtype == processor.dtype


FAULTS = """
import resource
from dr_cli import device
device.choose("cpu")
b"x" * 2**26  # 64 MiB, taken once
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
b"x" * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc")
def test_freed_memory_is_taken_again():
    """In a process of its own: among a whole suite's leftovers another hole may fit better."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True)
    assert int(done.stdout) < 1_000, done.stderr  # of 16,384 pages
