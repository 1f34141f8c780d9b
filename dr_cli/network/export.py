"""A grader as one file for other programs: ONNX, or a program of torch's own (`torch.export`).

The file takes crops as uint8 and gives what `dr predict` says of them: normalisation, temperature,
the mean over several networks, decision and operating point are inside. What a photograph goes
through before, finding its field and cutting it out, is named in the metadata and done by
`dr_cli.photographs.crop`, which needs no torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dr_cli.dataset.augment import normalise
from dr_cli.errors import DrError
from dr_cli.grades import NAMES, REFERABLE_FROM, referable_probability
from dr_cli.network.engine import INPUT, ONNX_EXTRA, to_onnx
from dr_cli.network.grader import Grader, Member
from dr_cli.writing import whole

SCHEMA = 1
OUTPUTS = ("probabilities", "predicted", "expected_grade", "referable_probability", "referable")
METADATA = "dr.json"  # within a file of torch's; of ONNX the property "dr"
TOLERANCE = 1e-4  # of a probability; measured: 2e-7


class Whole(nn.Module):
    """uint8 [N, 3, S, S] -> `OUTPUTS`: [N, 5] float32, [N] int64, [N] and [N] float32, [N] bool."""

    grades: Tensor
    cuts: Tensor | None

    def __init__(self, grader: Grader) -> None:
        super().__init__()
        way, calibration = grader.preprocessing, grader.calibration
        self.networks = nn.ModuleList(_plain(member) for member in grader.members)
        self.temperatures = [member.calibration.temperature or 1.0 for member in grader.members]
        self.threshold = grader.threshold
        self.way = way
        self.register_buffer("grades", torch.arange(len(NAMES), dtype=torch.float32))
        cuts = None if calibration.cuts is None else torch.tensor(calibration.cuts)
        self.register_buffer("cuts", cuts)

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        inputs = normalise(crops, self.way)
        each = [
            torch.softmax(network(inputs) / temperature, dim=1)
            for network, temperature in zip(self.networks, self.temperatures, strict=True)
        ]
        probabilities = torch.stack(each).mean(dim=0)
        expected = (probabilities * self.grades).sum(dim=1)
        if self.cuts is None:
            predicted = probabilities.argmax(dim=1)
        else:
            predicted = (expected[:, None] >= self.cuts).sum(dim=1)
        referable = probabilities[:, REFERABLE_FROM:].sum(dim=1)
        return probabilities, predicted, expected, referable, referable >= self.threshold


@dataclass(frozen=True)
class Agreement:
    """How far an exported file is from PyTorch on the same crops."""

    photographs: int
    apart: float
    """The largest difference of a probability."""
    other: int
    """Photographs that are graded or referred differently."""


def export(sources: Sequence[Path], file: Path, form: str, crops: NDArray[np.uint8]) -> Agreement:
    """Writes the grader of one or more runs as `file`, checked on crops, uint8 [N, 3, S, S].

    form: "onnx" or "torch". Raises UsageError where a source is no grader or the networks want
    different crops; DrError where what ONNX takes is not installed, or the file answers otherwise
    than PyTorch: then nothing is written.
    """
    grader = Grader.load(sources, device="cpu", precision="fp32", engine="torch")
    size = grader.preprocessing.size
    expected = grader.probabilities([(torch.from_numpy(crops), torch.zeros(0), torch.zeros(0))])
    program = torch.export.export(
        Whole(grader).eval(),
        (torch.zeros(2, 3, size, size, dtype=torch.uint8),),
        dynamic_shapes=({0: torch.export.Dim("photographs", min=1)},),
    )
    told = json.dumps(describe(grader, sources))
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as aside:
        if form == "torch":
            torch.export.save(program, aside, extra_files={METADATA: told})
        else:
            _save_onnx(program, aside, told)
        found = _compare(dict(zip(OUTPUTS, run(aside, crops), strict=True)), expected, grader)
        if found.apart > TOLERANCE:
            raise DrError(
                f"{form} answers otherwise than PyTorch: a probability differs by "
                f"{found.apart:.1g} on {len(crops)} photographs; nothing was written"
            )
    return found


def _compare(
    found: Mapping[str, NDArray[Any]], expected: NDArray[np.float64], grader: Grader
) -> Agreement:
    apart = float(np.abs(found["probabilities"] - expected).max(initial=0))
    other = found["predicted"] != grader.calibration.decide(expected)
    other |= found["referable"] != (referable_probability(expected) >= grader.threshold)
    return Agreement(len(expected), apart, int(other.sum()))


def describe(grader: Grader, sources: Sequence[Path]) -> dict[str, Any]:
    """What a program must know that puts the file to use, plain enough for JSON."""
    point = grader.calibration.operating_point
    return {
        "schema": SCHEMA,
        "runs": [Path(source).name for source in sources],
        "trained_on": grader.trained_on,
        "grades": list(NAMES),
        "preprocessing": grader.preprocessing.to_dict(),
        "temperatures": [member.calibration.temperature for member in grader.members],
        "decision": grader.calibration.to_record()["decision"],
        "referable_threshold": grader.threshold,
        "operating_point": point and point.to_record(),
        "input": {INPUT: "uint8 [N, 3, size, size], RGB, cut and scaled as preprocessing says"},
        "outputs": list(OUTPUTS),
        "note": "research and teaching, no diagnosis",
    }


def run(file: Path, pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """`OUTPUTS` of an exported file for crops uint8 [N, 3, S, S], by onnxruntime or by torch."""
    if file.suffix == ".onnx":
        try:
            import onnxruntime
        except ImportError as error:
            raise DrError(f"onnxruntime is not installed: {ONNX_EXTRA}") from error
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return session.run(list(OUTPUTS), {INPUT: pixels})
    with torch.inference_mode():
        found = torch.export.load(file).module()(torch.from_numpy(pixels))
    return [each.numpy() for each in found]


def _plain(member: Member) -> nn.Module:
    """The network in the memory format that exporters expect."""
    return member.network.to(memory_format=torch.contiguous_format)


def _save_onnx(program: torch.export.ExportedProgram, file: Path, told: str) -> None:
    made = to_onnx(program, OUTPUTS)
    made.model.metadata_props["dr"] = told
    made.save(file)
