"""What passes crops through a network: torch, or onnxruntime on a CPU (the extra `onnx`).

onnxruntime takes a file that torch's exporter makes, in seconds. It is made once for a set of
weights and kept in the cache, whole or not at all, under a digest of what it came from and one of
what it holds: a damaged one is made anew. Those not used for longest go as new ones come.
"""

import copy
import hashlib
import importlib.util
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

import dr_cli
from dr_cli.dataset.augment import normalise
from dr_cli.device import Processor
from dr_cli.errors import DrError, UsageError, WriteError
from dr_cli.events import NOTHING, Observer
from dr_cli.network.resnet import Bottleneck, ResNet
from dr_cli.photographs.crop import Preprocessing
from dr_cli.writing import whole

ENGINES = ("auto", "torch", "onnx")
INPUT = "crops"  # uint8 [N, 3, S, S], RGB
OUTPUTS = ("logits", "pooled")
OPSET = 18
ONNX_EXTRA = "pip install 'dr-cli[onnx]'"
TOLERANCE = 1e-4  # of the largest logit; measured: 1e-6
_RUNTIME = ("onnxruntime",)
_EXPORTER = ("onnx", "onnxscript")  # what torch's exporter takes
# Photographs that pay for the start: of a ResNet50 at 224 px it saves 0.033 s of a core each, and
# takes 0.6 s more to load, 6.5 s to make.
KEPT_FROM, MADE_FROM = 20, 200
MOST = 4 * 2**30  # bytes of all files: 45 of a ResNet50, 18 of a ResNet152
VERSION = 1  # of what the file does: another is another file


def check(engine: str, processor: Processor) -> None:
    """Raises UsageError for an engine that is none, or that cannot be had here."""
    if engine not in ENGINES:
        raise UsageError(f"--engine {engine}: choose one of {', '.join(ENGINES)}")
    if engine != "onnx":
        return
    if processor.device.type != "cpu":
        raise UsageError(f"--engine onnx runs on a CPU, not on {processor.reason}: --device cpu")
    if processor.dtype != torch.float32:
        raise UsageError(
            f"--engine onnx computes in fp32: leave out --precision {processor.precision}"
        )
    if not _installed(_RUNTIME + _EXPORTER):
        raise UsageError(f"--engine onnx needs what is not installed: {ONNX_EXTRA}")


def takes_onnx(
    engine: str, processor: Processor, models: Sequence["Model"], awaited: float
) -> bool:
    """Whether onnxruntime runs these networks. awaited: see `pays`."""
    if engine != "auto":
        return engine == "onnx"
    return pays(
        processor,
        bottlenecks=all(isinstance(model.network.layer1[0], Bottleneck) for model in models),
        runtime=_installed(_RUNTIME),
        exporter=_installed(_EXPORTER),
        kept=lambda: all(model.kept for model in models),
        awaited=awaited,
    )


def pays(
    processor: Processor,
    *,
    bottlenecks: bool,
    runtime: bool,
    exporter: bool,
    kept: Callable[[], bool],
    awaited: float,
) -> bool:
    """The rule of `auto`: onnxruntime where it is 1.2 times as fast as torch or more, and pays.

    That is networks of bottlenecks in fp32 on a CPU, by 1.79; of others it is 1.07 to 1.26, and 0.6
    to 0.8 of torch in bf16 (examples/benchmarks/inference.py --engines). runtime, exporter: whether
    what it takes is installed; kept: whether the file is in the cache; awaited: how many
    photographs come, inf where nobody knows.
    """
    suits = bottlenecks and processor.device.type == "cpu" and processor.dtype == torch.float32
    if not (suits and runtime and awaited >= KEPT_FROM):
        return False
    return (exporter and awaited >= MADE_FROM) or kept()


def _installed(names: Sequence[str]) -> bool:
    with suppress(ValueError):  # a module that has no spec
        return all(importlib.util.find_spec(name) is not None for name in names)
    return False


class Forward(nn.Module):
    """uint8 [N, 3, S, S] -> logits [N, 5] and pooled features [N, C], both float32."""

    def __init__(self, network: ResNet, way: Preprocessing) -> None:
        super().__init__()
        # A copy, as exporters expect another memory format than the one it is fast in.
        self.network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
        self.way = way

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        pooled = self.network.pool(self.network.features(normalise(crops, self.way)))
        return self.network.fc(pooled), pooled


class OnnxPass:
    """A network's pass by onnxruntime, on as many threads as torch has. Threads may share it."""

    def __init__(self, model: Path | bytes) -> None:
        """model: a file, which may go as soon as this is made; bytes onnxruntime holds for good, of
        a ResNet50 94 MB."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors
        self.session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [n, 3, S, S] -> logits [n, 5] and pooled features [n, C], float32."""
        found = self.session.run(list(OUTPUTS), {INPUT: pixels.contiguous().numpy()})
        logits, pooled = map(torch.from_numpy, found)
        return logits, pooled


@dataclass(frozen=True)
class Model:
    """What onnxruntime takes of a network in fp32, in eval mode on the CPU."""

    network: ResNet
    way: Preprocessing

    def load(self, observer: Observer = NOTHING) -> OnnxPass:
        """From the cache, else made and kept there. DrError where it cannot be made."""
        if self.kept:
            try:
                return OnnxPass(self.kept)
            except Exception:  # onnxruntime's are of no other kind
                if self.kept.exists():
                    raise
        observer.note("onnxruntime: making what it takes of the network, once; it takes seconds")
        return OnnxPass(self._make())

    @cached_property
    def _key(self) -> str:
        """Of weights, preprocessing and versions."""
        used = [VERSION, dr_cli.__version__, torch.__version__]
        told = json.dumps([used, self.way.to_dict()], sort_keys=True)
        digest = hashlib.blake2b(told.encode(), digest_size=16)
        for name, tensor in self.network.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    @cached_property
    def _folder(self) -> Path:
        from dr_cli.photographs.cache import folder  # on use: torch's grading needs none of it

        return folder() / "onnx"

    @cached_property
    def kept(self) -> Path | None:
        """Its file in the cache, if that is whole, as used just now; a damaged one is removed."""
        for file in sorted(self._folder.glob(f"{self._key}-*.onnx")):
            with suppress(OSError):  # it cannot be read, or not removed
                if file.name == self._name(file.read_bytes()):
                    with suppress(OSError):  # another's
                        os.utime(file)
                    return file
                file.unlink()
        return None

    def _name(self, model: bytes) -> str:
        return f"{self._key}-{hashlib.blake2b(model, digest_size=16).hexdigest()}.onnx"

    def _make(self) -> Path | bytes:
        """Made, compared with torch, and kept where the cache can be written to."""
        crops = torch.randint(0, 256, (2, 3, self.way.size, self.way.size), dtype=torch.uint8,
                              generator=torch.Generator().manual_seed(0))  # fmt: skip
        with torch.inference_mode():
            # Before the tracing, which would leave its own tensors in the empty cache of
            # `illumination._passes`, and then write a wrong model.
            expected, _ = Forward(self.network, self.way)(crops)
        model = self._export()
        apart = (OnnxPass(model)(crops)[0] - expected).abs().max() / expected.abs().max()
        if not apart <= TOLERANCE:
            raise DrError(
                f"onnxruntime answers otherwise than torch: a logit differs by {apart:.1g} of the "
                "largest; grade with --engine torch"
            )
        with suppress(OSError, WriteError):
            return self._keep(model) or model
        return model

    def _keep(self, model: bytes) -> Path | None:
        """Its file in the cache; None where there is no room for it."""
        from dr_cli.photographs.cache import make_room

        self._folder.mkdir(parents=True, exist_ok=True)
        files = self._folder.glob("*.onnx")  # with those that killed processes left aside
        if make_room(self._folder, files, len(model), MOST) < len(model):
            return None
        file = self._folder / self._name(model)
        with whole(file, lasting=False) as aside:
            aside.write_bytes(model)
        return file

    def _export(self) -> bytes:
        size = self.way.size
        program = torch.export.export(
            Forward(self.network, self.way).eval(),
            (torch.zeros(2, 3, size, size, dtype=torch.uint8),),
            dynamic_shapes=({0: torch.export.Dim("photographs", min=1)},),
        )
        return to_onnx(program, OUTPUTS).model_proto.SerializeToString()


def to_onnx(
    program: torch.export.ExportedProgram, outputs: Sequence[str]
) -> "torch.onnx.ONNXProgram":
    """By torch's exporter. DrError where what that takes is not installed, or it fails."""
    if not _installed(_EXPORTER):
        raise DrError(f"ONNX needs onnx and onnxscript: {ONNX_EXTRA}")
    try:
        made = torch.onnx.export(
            program, input_names=[INPUT], output_names=list(outputs), opset_version=OPSET,
            verbose=False,
        )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        raise DrError(
            f"torch's exporter to ONNX fails: {' '.join(str(error).split())[:160]}"
        ) from error
    assert made is not None  # as no file was named
    return made
