"""Which processor, in which precision, and why."""

import contextlib
import ctypes
import os
import sys
from dataclasses import dataclass

import torch

from dr_cli import machine
from dr_cli.errors import DrError, UsageError

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

    Raises UsageError on an unknown value, or a device that this machine or this build of torch
    does not have; DrError on a GPU that is there and cannot be used.
    """
    if device not in DEVICES:
        raise UsageError(f"--device {device}: choose one of {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision}: choose one of {', '.join(PRECISIONS)}")
    kind, why, warning = _kind(device)
    if kind == "cuda":
        return _cuda(precision, why)
    if kind == "mps":
        return _mps(precision, why)
    return _cpu(precision, why, warning)


def _kind(device: str) -> tuple[str, str, str | None]:
    """The device's type, why it was chosen, and a warning."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "cuda" and not cuda:
        built = (
            "no GPU that torch can use" if torch.version.cuda else "a build of torch without CUDA"
        )
        raise UsageError(f"--device cuda: here is {built}; use --device auto or cpu")
    if device == "mps" and not mps:
        raise UsageError("--device mps: here is no Apple GPU; use --device auto or cpu")
    if device != "auto":
        if device == "cuda" and (trouble := _cuda_trouble()):
            raise DrError(f"--device cuda: the GPU cannot be used ({trouble}); try --device cpu")
        return device, "asked for", None
    if cuda:
        if trouble := _cuda_trouble():
            return "cpu", "the GPU cannot be used", f"the GPU cannot be used: {trouble}"
        return "cuda", "found", None
    if mps:
        return "mps", "found", None
    return "cpu", "no GPU found", None


def _cuda_trouble() -> str | None:
    """Why the GPU fails at a first sum (too old for this build, taken, broken); None if not."""
    try:
        torch.ones(2, device=_cuda_device()).sum().item()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split())[:160]
    return None


def _cuda_device() -> torch.device:
    """The GPU of this process: torchrun numbers the processes of a machine."""
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))


def _cuda(precision: str, why: str) -> Processor:
    device = _cuda_device()
    torch.cuda.set_device(device)
    torch.set_float32_matmul_precision("high")  # TF32, which cuDNN's convolutions use anyway
    torch.backends.cudnn.benchmark = True
    fastest, because = _cuda_precision(device)
    warning = None
    if precision == "auto":
        precision = fastest
    else:
        because = "asked for"
        if precision == "bf16" and fastest != "bf16":
            warning = f"this GPU only imitates bf16: --precision {fastest} is faster here"
    said = "fp32 with TF32 products" if precision == "fp32" else precision
    name = torch.cuda.get_device_name(device)
    return Processor(device, DTYPES[precision], f"{name} ({why}), {said} ({because})", warning)


def _cuda_precision(device: torch.device) -> tuple[str, str]:
    """The fastest precision of a GPU, and why it is."""
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "the GPU has units for it"
    if torch.cuda.get_device_capability(device) >= (7, 0):  # tensor cores
        return "fp16", "the GPU has units for it, and none for bf16"
    return "fp32", "the GPU has units for nothing shorter"


def _mps(precision: str, why: str) -> Processor:
    because = "the default on Apple GPUs" if precision == "auto" else "asked for"
    precision = "fp32" if precision == "auto" else precision
    return Processor(
        torch.device("mps"), DTYPES[precision], f"Apple GPU ({why}), {precision} ({because})"
    )


def _cpu(precision: str, why: str, warning: str | None) -> Processor:
    threads = set_threads()
    keep_memory()
    fast = cpu_has_bf16()
    if precision == "auto":
        precision = "bf16" if fast else "fp32"
        because = f"the CPU has {'' if fast else 'no '}bf16 instructions"
    else:
        because = "asked for"
        if precision == "fp16" or (precision == "bf16" and not fast):
            warning = (
                f"this CPU has no fast {precision}: --precision fp32 is several times faster here"
            )
    reason = f"CPU ({why}), {threads} threads, {precision} ({because})"
    return Processor(torch.device("cpu"), DTYPES[precision], reason, warning)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware (AVX-512 BF16 or AMX).

    Asked of the instruction set and not of a stop-watch, so that a machine always answers the
    same. Without them bf16 is 0.08-0.45 times as fast as fp32 (0.19 for ResNet18 on AVX2).
    """
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def set_threads() -> int:
    """Give torch this process's share of the cores, and say how many threads that is.

    torch counts the machine's cores, not the container's share of them; and torchrun sets
    OMP_NUM_THREADS to 1. Where a person set it, outside torchrun, that stands.
    """
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if local_processes > 1 or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, machine.cores() // local_processes))
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
