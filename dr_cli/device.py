"""Which processor, in which precision, and why."""

import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass

import torch

from dr_cli import machine, words
from dr_cli.errors import DrError, UsageError
from dr_cli.ranks import Ranks

DEVICES = ("auto", "cpu", "cuda", "mps")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("auto", *DTYPES)


@dataclass(frozen=True)
class Processor:
    """What computes. `reason` says so in a sentence; `warning` is one more, or None."""

    device: torch.device
    dtype: torch.dtype  # of convolutions and products; weights and sums stay float32
    reason: str
    warning: str | None = None
    memory_format: torch.memory_format = torch.channels_last

    @property
    def precision(self) -> str:
        """ "fp32", "bf16" or "fp16"."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    @property
    def inference_batch(self) -> int:
        """Photographs graded at once where nobody says how many."""
        return 64 if self.device.type == "cuda" else 8

    def autocast(self) -> torch.autocast:
        """The context for a forward pass; it does nothing in fp32."""
        return torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps fp16's small gradients from vanishing; it does nothing in other precisions."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def choose(device: str = "auto", precision: str = "auto") -> Processor:
    """The processor asked for, or the fastest here, made ready: threads, TF32, cuDNN's search.
    Of processes that torchrun started on one machine each has a GPU of its own.

    Raises UsageError on an unknown value, or a device that this machine or this build of torch
    does not have; DrError on a GPU that is there and cannot be used.
    """
    if device not in DEVICES:
        raise UsageError(f"--device {device}: choose one of {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: choose one of {', '.join(PRECISIONS)}")
    kind, why, trouble = _find(device)
    prepare = {"cuda": _prepare_cuda, "mps": _prepare_mps, "cpu": _prepare_cpu}[kind]
    name, fastest, because = prepare(why)
    slow = None
    if precision == "auto":
        precision = fastest
    else:
        because, slow = "asked for", _warn(kind, precision, fastest)
    said = "fp32 with TF32 products" if (kind, precision) == ("cuda", "fp32") else precision
    where = torch.device(f"cuda:{_take_gpu()}" if kind == "cuda" else kind)
    reason = f"{name}, {said} ({because})"
    return Processor(where, DTYPES[precision], reason, slow or trouble)


def _find(device: str) -> tuple[str, str, str | None]:
    """The device's type, why it was chosen, and a warning."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "cuda" and not cuda:
        here = "no GPU that torch can use"
        if not torch.version.cuda:
            here = "a build of torch without CUDA"
        raise UsageError(f"--device cuda: here is {here}; use --device auto or cpu")
    if device == "mps" and not mps:
        raise UsageError("--device mps: here is no Apple GPU; use --device auto or cpu")
    trouble = _cuda_trouble() if cuda and device in ("auto", "cuda") else None
    if device == "cuda" and trouble:
        raise DrError(f"--device cuda: the GPU cannot be used ({trouble}); try --device cpu")
    if device != "auto":
        return device, "asked for", None
    if trouble:
        return "cpu", "the GPU cannot be used", f"the GPU cannot be used: {trouble}"
    if cuda or mps:
        return "cuda" if cuda else "mps", "found", None
    return "cpu", "no GPU found", None


def _take_gpu() -> int:
    """The number of this process's own. Raises UsageError where there are not enough."""
    ranks, there = Ranks.of_environment(), torch.cuda.device_count()
    if ranks.alone:
        return 0
    if ranks.beside > there:
        raise UsageError(f"{ranks.beside} processes, but {words.count(there, 'GPU')}: one each")
    torch.cuda.set_device(ranks.local)
    return ranks.local


def _cuda_trouble() -> str | None:
    """Why the GPU fails at a first sum (too old for this build, taken, broken); None if not."""
    try:
        torch.ones(2, device="cuda").sum().item()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split())[:160]
    return None


def _prepare_cuda(why: str) -> tuple[str, str, str]:
    """Sets an NVIDIA GPU up. What it is, its fastest precision, and why that one."""
    torch.set_float32_matmul_precision("high")  # TF32, which cuDNN's convolutions use anyway
    torch.backends.cudnn.benchmark = True
    name = f"{torch.cuda.get_device_name()} ({why})"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return name, "bf16", "the GPU has units for it"
    if torch.cuda.get_device_capability() >= (7, 0):  # tensor cores
        return name, "fp16", "the GPU has units for it, and none for bf16"
    return name, "fp32", "the GPU has units for nothing shorter"


def _prepare_mps(why: str) -> tuple[str, str, str]:
    return f"Apple GPU ({why})", "fp32", "the default on Apple GPUs"


def _prepare_cpu(why: str) -> tuple[str, str, str]:
    threads = set_threads()
    keep_memory()
    fastest, has = ("bf16", "") if cpu_has_bf16() else ("fp32", "no ")
    return (
        f"CPU ({why}), {words.count(threads, 'thread')}",
        fastest,
        f"the CPU has {has}bf16 instructions",
    )


def _warn(kind: str, precision: str, fastest: str) -> str | None:
    """That a precision asked for is slow on this kind of processor; None if it is not."""
    if kind == "cuda" and precision == "bf16" != fastest:
        return f"this GPU only imitates bf16: --precision {fastest} is faster here"
    if kind == "cpu" and precision not in ("fp32", fastest):
        return f"this CPU has no fast {precision}: --precision fp32 is several times faster here"
    return None


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware (AVX-512 BF16 or AMX).

    Asked of the instruction set and not of a stop-watch, so that a machine always answers the
    same. Without them bf16 is 0.08-0.45 times as fast as fp32 (0.19 for ResNet18 on AVX2).
    """
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def set_threads() -> int:
    """Give torch the cores that this process may use, and say how many threads that is.

    torch counts the machine's cores, not the container's share of them. Where a person set
    OMP_NUM_THREADS, that stands.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(machine.cores())
    return torch.get_num_threads()


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's malloc.h; mallopt(3)


def keep_memory() -> None:
    """Let glibc keep what is freed for the next batch; elsewhere this does nothing.

    Left to itself it asks the kernel for every large tensor anew, which clears the pages first:
    of a ResNet18's time at 512 px on two cores a tenth to a fifth, in training and in inference.
    What is kept costs up to a third more memory at the peak of training.
    """
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library has no such call
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, -1)


def memory(processor: Processor) -> int | None:
    """Bytes free on the device (on a CPU: in the machine or its container); None if unknown."""
    if processor.device.type == "cuda":
        return torch.cuda.mem_get_info(processor.device)[0]
    if processor.device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return machine.free_memory()


def peak_memory(processor: Processor) -> int | None:
    """Bytes at the peak so far: of the GPU's memory, else of this process; None where unknown."""
    if processor.device.type == "cuda":
        return torch.cuda.max_memory_allocated(processor.device)
    return machine.peak_memory()


def deterministic(wanted: bool) -> None:
    """The same bits from the same run on the same machine and threads; slower on a GPU.

    To be called before the first product on a GPU.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.backends.cudnn.benchmark = False  # its search may pick another algorithm each time
    torch.use_deterministic_algorithms(wanted)
