"""A trained run put to work: photographs in, records out.

Free of pandas, scikit-learn, matplotlib and torchvision: `dr predict` passes through here.
"""

import hashlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from weakref import WeakSet

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dr_cli import machine, markup, runs, words
from dr_cli.dataset.augment import normalise
from dr_cli.device import Processor, choose
from dr_cli.errors import UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import Calibration
from dr_cli.labels.owners import Whose
from dr_cli.network import engine as engines
from dr_cli.network.activation import STRIDE, Trace, Tracer
from dr_cli.network.batching import in_batches
from dr_cli.network.given import Decoded, Photograph, as_several, decode
from dr_cli.network.novelty import Familiar, mean_novelty, read_familiar
from dr_cli.network.pairs import OWNER, Pairs
from dr_cli.network.records import Record
from dr_cli.network.resnet import ResNet, build_resnet, inference_copy, name_architecture
from dr_cli.network.telling import Telling
from dr_cli.photographs.crop import Preprocessing
from dr_cli.plots.heat import overlay
from dr_cli.runs import TrainedOn
from dr_cli.writing import whole

VIEWS = 8  # of --tta; on APTOS 1, 4 and 8 gave QWK .895, .904, .909 (after_training.py)
# Letters: in UTF-8 up to 220 of the 255 bytes that file systems allow; 27 are what `_draw` and
# `whole`, which writes it aside, put round them.
_LONGEST_STEM = 55


def logits_of(
    network: ResNet,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    way: Preprocessing,
    processor: Processor,
    progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.float32]:
    """Logits of every batch of uint8 [n, 3, H, W], in order: [N, 5] float32.

    progress: told how many are done.
    """
    network.eval()
    seen = _watch(batches, progress)
    found = [_run(network, pixels, way, processor, tta=False) for pixels in seen]
    return torch.cat(found).cpu().numpy() if found else np.zeros((0, 5), np.float32)


def _watch(
    batches: Iterable[tuple[Tensor, Tensor, Tensor]], progress: Callable[[int], None]
) -> Iterator[Tensor]:
    """The pixels of each batch; `progress` hears how many the consumer has done with."""
    done = 0
    for pixels, _, _ in batches:
        yield pixels
        done += len(pixels)
        progress(done)


def _run(
    network: ResNet, pixels: Tensor, way: Preprocessing, processor: Processor, tta: bool
) -> Tensor:
    """Logits of uint8 [n, 3, S, S], as `Member.forward` gives them."""
    with torch.inference_mode(), processor.autocast():
        return _see(lambda view: network(_make_ready(view, way, processor)).float(), pixels, tta)


def _see(one: Callable[[Tensor], Tensor], pixels: Tensor, tta: bool) -> Tensor:
    """Logits of uint8 [n, 3, S, S], by `one` which gives those of one view."""
    logits = [one(turn(pixels, view)) for view in range(VIEWS if tta else 1)]
    return _mean(logits) if tta else logits[0]


def turn(pixels: Tensor, view: int) -> Tensor:
    """[N, 3, S, S] in one of the VIEWS that a square has: as it is, the other three mirrorings,
    then the same with its axes exchanged."""
    axes = [axis for bit, axis in ((1, 3), (2, 2)) if view & bit]
    pixels = pixels.flip(axes) if axes else pixels
    return pixels.transpose(2, 3) if view & 4 else pixels


def pooled_features(
    network: ResNet,
    batches: Iterable[tuple[Tensor, Tensor, Tensor]],
    way: Preprocessing,
    processor: Processor,
) -> NDArray[np.float32]:
    """What the head sees of every batch of uint8 [n, 3, H, W], in order: [N, C] float32."""
    network.eval()
    found = [_look(network, pixels, way, processor)[1] for pixels, _, _ in batches]
    width = network.fc.in_features
    return torch.cat(found).cpu().numpy() if found else np.zeros((0, width), np.float32)


def _look(
    network: ResNet, pixels: Tensor, way: Preprocessing, processor: Processor
) -> tuple[Tensor, Tensor]:
    """Logits [n, 5] and pooled features [n, C], float32, of uint8 [n, 3, S, S]."""
    with torch.inference_mode(), processor.autocast():
        pooled = network.pool(network.features(_make_ready(pixels, way, processor)))
        return network.fc(pooled).float(), pooled.float()


def _make_ready(pixels: Tensor, way: Preprocessing, processor: Processor) -> Tensor:
    inputs = normalise(pixels.to(processor.device, non_blocking=True), way)
    return inputs.contiguous(memory_format=processor.memory_format)


def _mean(logits: Sequence[Tensor]) -> Tensor:
    """Logits of the mean probability."""
    each = torch.stack([torch.log_softmax(one, 1) for one in logits])
    return torch.logsumexp(each, 0) - math.log(len(each))


@dataclass
class Member:
    """One network of a grader, with the preprocessing and calibration stored beside it."""

    network: ResNet
    preprocessing: Preprocessing
    calibration: Calibration
    processor: Processor
    trained_on: TrainedOn | None = None
    familiar: Familiar | None = None
    onnx: engines.OnnxPass | None = None
    """What runs the network in torch's place; None where torch does."""

    def __post_init__(self) -> None:
        """The network is made ready, in place: moved, in eval mode, in fp32 a folded copy."""
        where = self.processor
        self.network.to(where.device).to(memory_format=where.memory_format).eval()
        # Folding changes what is rounded to bf16: probabilities by up to 0.005, for 5% of speed.
        if where.dtype == torch.float32:
            self.network = inference_copy(self.network)

    @classmethod
    def load(cls, source: Path, processor: Processor) -> "Member":
        """From a run folder or its model.safetensors. UsageError where it is no grader."""
        tensors, record = runs.read_model(source)
        network = build_resnet(record.arch)
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise UsageError(
                f"{source}: its weights are not those of a {record.arch}: train it again"
            ) from error
        way = Preprocessing.from_dict(record.preprocessing)
        familiar = read_familiar(source, record)
        return cls(network, way, record.calibration, processor, record.trained_on, familiar)

    def forward(self, pixels: Tensor, tta: bool = False) -> Tensor:
        """uint8 [n, 3, S, S] -> logits [n, 5] float32; tta: of the mean over VIEWS, see `turn`."""
        if self.onnx is None:
            return _run(self.network, pixels, self.preprocessing, self.processor, tta)
        return _see(lambda view: self.look(view)[0], pixels, tta)

    def look(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The same without flips, and what the head sees: [n, C] float32."""
        if self.onnx is not None:
            return self.onnx(pixels)
        return _look(self.network, pixels, self.preprocessing, self.processor)

    @cached_property
    def tracer(self) -> Tracer:
        """What looks back at its passes."""
        return Tracer(self.network)

    def trace(self, pixels: Tensor) -> Trace:
        """The same pass, of one view, to be looked back at; by torch, whatever the engine."""
        with self.processor.autocast():
            ready = _make_ready(pixels, self.preprocessing, self.processor)
            return self.tracer.trace(ready)


class Grader:
    """One run, or several whose probabilities are averaged.

    members: all on one processor. calibration: the run's own, or what was chosen on the
    mean of several; without, theirs pooled: see `Calibration.pooled`. threshold: the probability
    of grade 2 or more from which an eye is called referable, in [0, 1]. trained_on: the names
    of what the members learned from. engine: what runs them, "torch" or "onnx".

    >>> from dr_cli.device import choose
    >>> untrained = build_resnet("resnet18")
    >>> grader = Grader([Member(untrained, Preprocessing(64), Calibration(), choose("cpu"))])
    >>> [record] = grader.predict(["eye.jpg"])
    >>> record["predicted"], record["error"]
    (None, 'no such file')
    >>> pixels = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    >>> grader.probabilities([(pixels, torch.zeros(2), torch.arange(2))]).shape
    (2, 5)

    Threads run while records of `predict` are asked for, and end with the last of them, or when
    the iterator is closed or forgotten. `with Grader.load(…) as grader:` closes those that are
    still open when the block ends.
    """

    def __init__(self, members: Sequence[Member], calibration: Calibration | None = None) -> None:
        self.members = list(members)
        self.processor = self.members[0].processor
        self.engine = "onnx" if all(member.onnx for member in self.members) else "torch"
        pooled = Calibration.pooled([member.calibration for member in self.members])
        self.calibration = calibration or pooled
        point = self.calibration.operating_point
        self.threshold = point.referable.value if point else 0.5
        learned = [member.trained_on for member in self.members if member.trained_on]
        self.trained_on = ", ".join(dict.fromkeys(one.name for one in learned)) or None
        self._telling = Telling(self.calibration, self.threshold, self.trained_on)
        self._asked: WeakSet[Generator[Record, None, None]] = WeakSet()

    def __enter__(self) -> "Grader":
        return self

    def __exit__(self, *why: object) -> None:
        for records in list(self._asked):
            records.close()

    def __repr__(self) -> str:
        return f"Grader({'; '.join(f'{name}: {told}' for name, told in _describe(self).items())})"

    def _repr_html_(self) -> str:
        return markup.facts(_describe(self))

    @classmethod
    def load(
        cls,
        source: str | Path | Sequence[str | Path],
        *,
        device: str = "auto",
        precision: str = "auto",
        engine: str = "auto",
        awaited: float = engines.KEPT_FROM,
        observer: Observer = NOTHING,
    ) -> "Grader":
        """From a run folder or its model.safetensors, or a list of them.

        engine: "torch", "onnx" (onnxruntime, in fp32 on a CPU) or "auto", the faster for as many
        photographs as are awaited, see `engine.pays`; from 200 on it may make what onnxruntime
        takes, of which observer is told. Raises UsageError where one has no weights or is no
        grader, or the engine cannot be had; DrError where what it takes cannot be made.
        """
        processor = choose(device, "fp32" if (engine, precision) == ("onnx", "auto") else precision)
        engines.check(engine, processor)
        several = [source] if isinstance(source, (str, Path)) else list(source)
        folders = [folder for one in several for folder in runs.Run(Path(one)).networks()]
        alone = runs.Run(Path(several[0])) if len(several) == 1 else None
        # Of several seeds thresholds were chosen on their mean, and not one by one.
        chosen = alone.config().chosen if alone and alone.seeds() else None
        members = [Member.load(folder, processor) for folder in folders]
        _equip(members, engine, awaited, observer)
        return cls(members, chosen)

    @property
    def preprocessing(self) -> Preprocessing:
        """What the pixels of all members go through. UsageError where those differ."""
        first, *others = dict.fromkeys(member.preprocessing for member in self.members)
        if others:
            one, other = first.to_dict(), others[0].to_dict()
            name = next(name for name in one if one[name] != other[name])
            raise UsageError(
                "these networks were trained on crops made in different ways, such as with "
                f"{name} {one[name]} and {other[name]}: look at one of them at a time"
            )
        return first

    def probabilities(
        self,
        batches: Iterable[tuple[Tensor, Tensor, Tensor]],
        progress: Callable[[int], None] = lambda done: None,
        tta: bool = False,
    ) -> NDArray[np.float64]:
        """Mean over the members of calibrated probabilities: [N, 5], in the order of the batches.

        batches: (pixels uint8 [n, 3, S, S] made as `preprocessing` says, grades, indices), walked
        once. progress: told how many are done. tta: as in `Member.forward`.
        """
        return self.probabilities_of_each(batches, progress, tta).mean(axis=0)

    def probabilities_of_each(
        self,
        batches: Iterable[tuple[Tensor, Tensor, Tensor]],
        progress: Callable[[int], None] = lambda done: None,
        tta: bool = False,
    ) -> NDArray[np.float64]:
        """What `probabilities` is the mean of: [members, N, 5]."""
        logits = [  # of each batch, of each member
            [member.forward(pixels, tta) for member in self.members]
            for pixels in _watch(batches, progress)
        ]
        each = [torch.cat(found) for found in zip(*logits, strict=True)]
        return self._calibrate(each) if each else np.zeros((len(self.members), 0, 5))

    def predict(
        self,
        photographs: Photograph | Iterable[Photograph],
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        tta: bool = False,
        explain: Path | None = None,
        pair: Whose | None = None,
    ) -> Iterator[Record]:
        """A record a photograph, in order, as they are known; the fields of `dr predict` in JSON.
        `Records(grader.predict(…))` is a list of them that a notebook shows as a table.

        photographs: one, or any number of them: see `Photograph`. The path of a picture in memory
        is its `filename`, of a file its `name`, or "". A file that cannot be read keeps its record,
        with `error` filled and the rest None. batch_size: at once; None is 64 on a GPU, 8 on a CPU.
        explain: a folder for heatmaps; each record names its own; there torch runs the first
        network, whatever the engine. Photographs are walked in a
        thread, ahead of the network and decoded meanwhile, three batches at most: memory does not
        grow with them, and a slow source is answered at once. pair: what tells patient and eye of a
        path, such as `owners.by_name`; then records have both, and at last each patient has one of
        its own without a path, see `pairs`. Raises TypeError for anything else, ValueError for a
        batch of none.
        """
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: at least 1 photograph at once")
        several = as_several(photographs)
        records = self._tell(self._predict(several, batch_size, workers, tta, explain), pair)
        self._asked.add(records)
        return records

    def _tell(
        self, records: Generator[tuple[Decoded, Record], None, None], whose: Whose | None
    ) -> Generator[Record, None, None]:
        """The records; with `whose` also those of patients, at last."""
        pairs = Pairs(whose, self.calibration, self.threshold) if whose else None
        with closing(records):  # who stops early stops the threads
            for one, record in records:
                yield pairs.own(record, one.owner) if pairs else record
        if pairs:
            yield from pairs.rows(self._telling.blank() | dict.fromkeys(OWNER))

    def _predict(
        self,
        photographs: Iterable[Photograph],
        batch_size: int | None,
        workers: int | None,
        tta: bool,
        explain: Path | None,
    ) -> Generator[tuple[Decoded, Record], None, None]:
        batch_size = batch_size or self.processor.inference_batch
        workers = workers or machine.cores()
        ways = [member.preprocessing for member in self.members]
        work = partial(decode, ways=ways, show=explain is not None)
        with (
            closing(in_batches(work, photographs, workers, batch_size)) as batches,
            ThreadPoolExecutor(machine.cores(), "dr-draw") as pool,  # threads start with --explain
        ):
            for some in batches:
                good = [one for one in some if one.problem is None]
                records = iter(self._grade(good, tta, explain, pool) if good else ())
                for one in some:
                    yield one, next(records) if one.problem is None else self._telling.fail(one)

    def _grade(
        self, good: Sequence[Decoded], tta: bool, explain: Path | None, pool: ThreadPoolExecutor
    ) -> list[Record]:
        stacks = [
            torch.from_numpy(np.stack([crop.pixels for crop in crops]))
            for crops in zip(*(one.crops for one in good), strict=True)
        ]
        traced = self.members[0].trace(stacks[0]) if explain is not None else None
        seen = [
            (traced.logits, traced.pooled)  # one pass gives both
            if traced and member is self.members[0]
            else member.look(pixels)
            for member, pixels in zip(self.members, stacks, strict=True)
        ]
        logits = [one for one, _ in seen]
        if tta:
            logits = [
                m.forward(pixels, tta) for m, pixels in zip(self.members, stacks, strict=True)
            ]
        novelty = mean_novelty(
            [member.familiar for member in self.members], [one.cpu().numpy() for _, one in seen]
        )
        rows = zip(good, self._pool(logits), novelty, strict=True)
        records = [self._telling.tell(one.path, row, one.crops[0], far) for one, row, far in rows]
        if traced and explain is not None:
            maps = traced.heat([record["predicted"] for record in records])
            # 3 ms a photograph of 512 pixels, whose grading takes 66 on one core.
            drawn = pool.map(partial(_draw, explain), good, maps)
            for record, path in zip(records, drawn, strict=True):
                record["heatmap"] = str(path)
        return records

    def _pool(self, logits: list[Tensor]) -> NDArray[np.float64]:
        """The members' logits, [n, 5] each -> the mean of their calibrated probabilities."""
        return self._calibrate(logits).mean(axis=0)

    def _calibrate(self, logits: list[Tensor]) -> NDArray[np.float64]:
        """The members' logits, [n, 5] each -> their calibrated probabilities, [members, n, 5]."""
        pairs = zip(self.members, logits, strict=True)
        return np.stack(
            [member.calibration.probabilities(one.cpu().numpy()) for member, one in pairs]
        )


def _equip(members: Sequence[Member], engine: str, awaited: float, observer: Observer) -> None:
    """Has onnxruntime run the networks, where that is asked for or pays."""
    models = [engines.Model(member.network, member.preprocessing) for member in members]
    if engines.takes_onnx(engine, members[0].processor, models, awaited):
        for member, model in zip(members, models, strict=True):
            member.onnx = model.load(observer)


def _describe(grader: Grader) -> dict[str, str]:
    """A grader in words: its networks, what they learned from, how they decide."""
    chosen = grader.calibration
    point = chosen.operating_point
    sizes = dict.fromkeys(f"{one.preprocessing.size} px" for one in grader.members)
    cuts = ", ".join(words.number(cut, 2) for cut in chosen.cuts or ())
    rule = point.referable.rule if point else "nothing was chosen on validation"
    return {
        "architecture": ", ".join(name_architecture(one.network) for one in grader.members),
        "learned from": grader.trained_on or "not known",
        "size": ", ".join(sizes),
        "decision": f"expected grade, cut at {cuts}" if cuts else "the likeliest grade",
        "referable from": f"{words.number(grader.threshold)} ({rule})",
    }


def _draw(folder: Path, one: Decoded, cells: NDArray[np.float32]) -> Path:
    """The heatmap over the photograph. Its name holds the photograph's, and what tells equal names
    apart; the same photograph gives the same name again. Of an upload it may hold anything."""
    crop = one.crops[0]
    assert crop.shown is not None
    told = one.path.encode(errors="surrogateescape") or crop.shown.tobytes()
    stem = Path(one.path).stem.replace("\0", "")[:_LONGEST_STEM] or "photograph"
    path = folder / f"{stem}-{hashlib.blake2b(told, digest_size=4).hexdigest()}.jpg"
    folder.mkdir(parents=True, exist_ok=True)
    with whole(path, lasting=False) as aside:  # it can be drawn again
        pitch = STRIDE * crop.shown.shape[1] / crop.pixels.shape[1]
        overlay(crop.shown, cells, pitch).save(aside, quality=90)
    return path
