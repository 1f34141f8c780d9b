"""A trained run put to work: photographs in, records out.

Free of pandas, scikit-learn, matplotlib and torchvision: `dr predict` passes through here.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dr_cli import device, machine, runs
from dr_cli.dataset.augment import normalise
from dr_cli.errors import DrError, UsageError
from dr_cli.grades import NAMES, Calibration, expected_grade, referable_probability
from dr_cli.network.activation import class_activation, overlay
from dr_cli.network.resnet import build_resnet, inference_copy
from dr_cli.photographs.fundus import Crop, Preprocessing, load_crop
from dr_cli.writing import whole

Record = dict[str, Any]


def logits_of(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    way: Preprocessing,
    processor: device.Processor,
    progress: Callable[[int], None] = lambda done: None,
    tta: bool = False,
) -> NDArray[np.float32]:
    """Logits of every batch of uint8 [n, 3, H, W], in order: [N, 5] float32.

    tta: the logarithm of the mean probability over four flips.
    """
    network.eval()
    found: list[Tensor] = []
    done = 0
    with torch.inference_mode():
        for pixels, _, _ in batches:
            found.append((_over_flips if tta else _logits)(network, pixels, way, processor))
            done += len(pixels)
            progress(done)
    return torch.cat(found).cpu().numpy() if found else np.zeros((0, 5), np.float32)


def _logits(
    network: nn.Module, pixels: Tensor, way: Preprocessing, processor: device.Processor
) -> Tensor:
    inputs = normalise(pixels.to(processor.device, non_blocking=True), way)
    with processor.autocast():
        return network(inputs.contiguous(memory_format=processor.memory_format)).float()


def _over_flips(
    network: nn.Module, pixels: Tensor, way: Preprocessing, processor: device.Processor
) -> Tensor:
    """log of the mean probability over the four flips; its softmax is that mean."""
    views = (pixels, pixels.flip(3), pixels.flip(2), pixels.flip((2, 3)))
    each = [torch.log_softmax(_logits(network, view, way, processor), 1) for view in views]
    return torch.logsumexp(torch.stack(each), 0) - math.log(len(views))


class Member:
    """One network of a grader, with the preprocessing and calibration stored beside it."""

    def __init__(self, source: Path, processor: device.Processor) -> None:
        tensors, record = runs.read_model(source)
        self.source = source
        self.preprocessing = Preprocessing.from_dict(record.preprocessing)
        self.calibration = record.calibration
        self.network = build_resnet(record.arch)
        try:
            self.network.load_state_dict(tensors)
        except RuntimeError as error:
            raise UsageError(
                f"{source}: its weights are not those of a {record.arch}: train it again"
            ) from error
        self.processor = processor
        self.network.to(processor.device).to(memory_format=processor.memory_format).eval()
        # Folding changes what is rounded to bf16: probabilities by up to 0.005, for 5% of speed.
        whole = processor.dtype == torch.float32
        self.folded = inference_copy(self.network) if whole else self.network

    def probabilities(self, pixels: Tensor, tta: bool = False) -> NDArray[np.float64]:
        """Calibrated probabilities of uint8 [N, 3, S, S]: [N, 5]; tta: mean over four flips."""
        with torch.inference_mode():
            each = _over_flips if tta else _logits
            logits = each(self.folded, pixels, self.preprocessing, self.processor)
        return self.calibration.probabilities(logits.cpu().numpy())


class Grader:
    """One run, or several whose probabilities are averaged."""

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self.calibration = Calibration.pooled([member.calibration for member in self.members])
        self.processor = self.members[0].processor
        point = self.calibration.operating_point
        self.threshold = point.referable.value if point else 0.5  # of "referable"

    @classmethod
    def load(
        cls,
        source: str | Path | Sequence[str | Path],
        *,
        device: str = "auto",
        precision: str = "auto",
    ) -> "Grader":
        """From a run folder or its model.safetensors, or a list of them.

        Raises UsageError where one has no weights or is no grader.
        """
        from dr_cli.device import choose

        processor = choose(device, precision)
        several = [source] if isinstance(source, (str, Path)) else list(source)
        folders = [folder for one in several for folder in runs.Run(Path(one)).networks()]
        return cls([Member(folder, processor) for folder in folders])

    @property
    def preprocessing(self) -> Preprocessing:
        """What every member does to a photograph. UsageError where they differ."""
        if len({member.preprocessing for member in self.members}) > 1:
            raise UsageError("these networks want their photographs prepared differently")
        return self.members[0].preprocessing

    def probabilities(
        self,
        batches: Iterable[tuple[Tensor, Tensor, Tensor]],
        progress: Callable[[int], None] = lambda done: None,
        tta: bool = False,
    ) -> NDArray[np.float64]:
        """Mean over the members of their calibrated probabilities: [N, 5].

        batches: of uint8 pixels [n, 3, S, S], grades and indices; walked once. progress is told
        how many images are done.
        """
        found = [np.zeros((0, len(NAMES)))]
        for pixels, _, _ in batches:
            found.append(
                np.mean([member.probabilities(pixels, tta) for member in self.members], axis=0)
            )
            progress(sum(map(len, found)))
        return np.concatenate(found)

    def predict(
        self,
        paths: Iterable[str | Path],
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        tta: bool = False,
        explain: Path | None = None,
    ) -> Iterator[Record]:
        """A record a path, in order, as they are known; the fields of `dr predict` in JSON.

        A file that cannot be read keeps its record, with `error` filled and the rest None.
        batch_size: at once; None is 64 on a GPU, 8 on a CPU. explain: a folder for heatmaps over
        the crops. Memory does not grow with the paths.
        """
        batch_size = batch_size or self.members[0].processor.inference_batch
        with ThreadPoolExecutor(workers or machine.cores()) as pool:
            names = iter(paths)
            ahead = [pool.submit(self._crops, path) for path in islice(names, 2 * batch_size)]
            while ahead:
                now, ahead = ahead[:batch_size], ahead[batch_size:]
                ahead += [pool.submit(self._crops, path) for path in islice(names, len(now))]
                yield from self._grade([one.result() for one in now], tta, explain)

    def _crops(self, path: str | Path) -> tuple[str, list[Crop] | str]:
        """The crop for each member, or why there is none; one decoding a preprocessing."""
        try:
            made: dict[Preprocessing, Crop] = {}
            for member in self.members:
                way = member.preprocessing
                if way not in made:
                    made[way] = load_crop(path, way)
            return str(path), [made[member.preprocessing] for member in self.members]
        except DrError as error:
            return str(path), str(error)

    def _grade(
        self, items: list[tuple[str, list[Crop] | str]], tta: bool, explain: Path | None
    ) -> Iterator[Record]:
        good = [crops for _, crops in items if not isinstance(crops, str)]
        graded: Iterator[tuple[NDArray[np.float64], list[Crop]]] = iter(())
        if good:
            each = [
                member.probabilities(_stack([crops[k] for crops in good]), tta)
                for k, member in enumerate(self.members)
            ]
            graded = zip(np.mean(each, axis=0), good, strict=True)
        for path, crops in items:
            if isinstance(crops, str):
                yield _failure(path, crops)
                continue
            row, crops = next(graded)
            record = self._record(path, row, crops[0])
            if explain is not None:
                self._explain(explain, path, crops[0], record["predicted"])
            yield record

    def _record(self, path: str, row: NDArray[np.float64], crop: Crop) -> Record:
        row = row.round(6)  # as a run's prediction files hold them
        predicted = int(self.calibration.decide(row[None])[0])
        referable = float(referable_probability(row[None])[0])
        return {
            "path": path,
            "predicted": predicted,
            "name": NAMES[predicted],
            "probabilities": [float(p) for p in row],
            "expected_grade": round(float(expected_grade(row[None])[0]), 4),
            "referable": referable >= self.threshold,
            "referable_probability": round(referable, 6),
            "gradable": bool(crop.gradable),
            "quality": round(float(crop.quality), 4),
            "error": None,
        }

    def _explain(self, folder: Path, path: str, crop: Crop, grade: int) -> None:
        """A heatmap of the first network for the predicted grade, over the crop."""
        member = self.members[0]
        inputs = normalise(_stack([crop]).to(member.processor.device), member.preprocessing)
        heat = class_activation(member.network, inputs, grade)[0]
        folder.mkdir(parents=True, exist_ok=True)
        with whole(_free(folder, Path(path).stem)) as aside:
            overlay(crop.pixels, heat).save(aside)


def _stack(crops: list[Crop]) -> Tensor:
    return torch.from_numpy(np.stack([crop.pixels for crop in crops]))


def _free(folder: Path, stem: str) -> Path:
    """Two photographs of one name in different folders keep a heatmap each."""
    path, k = folder / f"{stem}.png", 2
    while path.exists():
        path, k = folder / f"{stem}-{k}.png", k + 1
    return path


def _failure(path: str, reason: str) -> Record:
    empty: Record = dict.fromkeys(
        ("path", "predicted", "name", "probabilities", "expected_grade", "referable",
         "referable_probability", "gradable", "quality", "error")
    )  # fmt: skip
    return empty | {"path": path, "error": reason}
