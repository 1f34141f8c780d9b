"""`--start drawn`: weights that drawn eyes taught, for those who have none of ImageNet.

Made once a machine for an architecture and what the pixels go through, then taken from the cache;
broken off, it is gone on with.
The eyes are a stream, never the same twice. Beside the grade the network learns where each kind
of lesion lies, by a head on the map before its last stage, which is thrown away at the end: what is
kept is a plain ResNet. Measured in examples/recipes.md.
"""

import hashlib
import json
import math
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dr_cli import interrupts, machine, words
from dr_cli.dataset.augment import normalise
from dr_cli.dataset.drawn_stream import KINDS, Stream, Taught, batches
from dr_cli.device import Processor
from dr_cli.errors import DrError
from dr_cli.events import NOTHING, Observer
from dr_cli.grades import REFERABLE_FROM, Calibration, referable_probability
from dr_cli.network.resnet import ResNet, build_resnet
from dr_cli.photographs import cache
from dr_cli.photographs.crop import Preprocessing
from dr_cli.runs import MODEL, ModelRecord, Run, TrainedOn, read_record
from dr_cli.sample import drawn_set
from dr_cli.scoring import metrics
from dr_cli.training import saved
from dr_cli.training.config import TrainConfig
from dr_cli.training.optimizer import make_optimizer
from dr_cli.writing import whole, write_json

RECORD = "start.json"
UNFINISHED = "unfinished.pt"
SAVE_EVERY = 600  # seconds, as --save-every of a run; a signal saves at once
TEACHING = "teaching with drawn eyes"


@dataclass(frozen=True)
class Recipe:
    """How a start is made."""

    eyes: int = 40_000  # 12,000 carry over by far less: examples/recipes.md
    batch_size: int = 32
    lr: float = 2e-3  # of AdamW, at its peak
    warmup: int = 50  # steps
    weight_decay: float = 0.01
    maps: float = 1.0  # weight of the lesions' loss beside the grade's; 0 is the grade alone
    gain: float = 3.0  # a cell counts as all lesion where a third of it is
    seed: int = 0
    judged: int = 300  # further eyes, for the figures that are recorded
    drawing: int = drawn_set.VERSION


RECIPE = Recipe()


@dataclass(frozen=True)
class Start:
    """A start in the cache."""

    folder: Path
    record: dict[str, Any]
    """Recipe, architecture, preprocessing, figures on drawn eyes, seconds, machine."""

    @property
    def weights(self) -> Path:
        """A whole grader by its metadata, which says that it has seen drawn eyes alone."""
        return self.folder / MODEL


def ensure(
    arch: str,
    way: Preprocessing,
    processor: Processor,
    recipe: Recipe,
    *,
    workers: int | None = None,
    observer: Observer = NOTHING,
) -> Start:
    """The start of an architecture for crops that go this way, made if it is not in the cache yet.

    Raises DrError where it cannot be written, or what is there is damaged.
    """
    asked = {"arch": arch, "preprocessing": way.to_dict(), "recipe": asdict(recipe)}
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache.folder() / "start" / f"{arch}-{way.size}-{key}"
    if not (folder / RECORD).is_file():
        observer.note(
            f"start: {words.count(recipe.eyes, 'drawn eye')} teach a {arch} of {way.size} px "
            f"first, once on this machine (kept in {folder.parent}; interrupted, the same command "
            "goes on with it)"
        )
        try:
            _make(folder, arch, way, processor, recipe, asked, workers, observer)
        except OSError as error:
            raise DrError(
                f"cannot write the start to {folder}: {error.strerror or error}; free some space "
                "there, or set DR_CACHE to another folder"
            ) from error
    return _read(folder)


def _read(folder: Path) -> Start:
    """The start there. Raises DrError where its files are not as `_make` wrote them."""
    try:
        start = Start(folder, json.loads((folder / RECORD).read_text(encoding="utf-8")))
        tell(start)  # which takes what the record must hold
        read_record(start.weights)
    except (DrError, LookupError, TypeError, ValueError) as error:
        raise DrError(
            f"the drawn start in {folder} is damaged: remove that folder, and the same command "
            "makes it anew"
        ) from error
    return start


def tell(start: Start) -> str:
    """What it is, a sentence."""
    found, recipe = start.record["figures"], start.record["recipe"]
    return (
        f"start: taught with {recipe['eyes']:,} drawn eyes in {start.record['seconds']:.0f} s "
        f"(on {found['eyes']:,} others: QWK {found['qwk']:.3f}, referable AUC "
        f"{found['referable_auc']:.3f})"
    )


def _make(
    folder: Path,
    arch: str,
    way: Preprocessing,
    processor: Processor,
    recipe: Recipe,
    asked: dict[str, Any],
    workers: int | None,
    observer: Observer,
) -> None:
    """By one process at a time, which goes on where another was ended; the record comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    with cache.alone(folder, "making the same start", observer):
        if (folder / RECORD).is_file():
            return
        lesson = Lesson(arch, way, processor, recipe, folder / UNFINISHED)
        network = lesson.teach(workers, observer)
        figures = judge(network, way, processor, recipe)
        seen = TrainedOn("drawn eyes", f"stream of seed {recipe.seed}", drawn=True)
        tensors = {name: value.cpu() for name, value in network.state_dict().items()}
        Run(folder).save_model(tensors, ModelRecord(arch, way.to_dict(), Calibration(), None, seen))
        made = {"figures": figures, "seconds": lesson.seconds, "device": processor.reason}
        made |= {"machine": platform.machine(), "torch": torch.__version__}
        write_json(folder / RECORD, asked | made)
        (folder / UNFINISHED).unlink(missing_ok=True)


class Pupil(nn.Module):
    """A ResNet with a second head, on its map at 1/16: [N, 3, H, W] -> logits [N, 5] and maps
    [N, kinds, ⌈H/16⌉, ⌈W/16⌉], logits, too."""

    def __init__(self, network: ResNet) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Conv2d(network.fc.in_features // 2, KINDS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = self.network.before_last(x)
        return self.network.classify(self.network.layer4(before)), self.head(before)


class Lesson:
    """A network that learns from `recipe.eyes` drawn eyes, once each."""

    def __init__(
        self, arch: str, way: Preprocessing, processor: Processor, recipe: Recipe, file: Path
    ) -> None:
        """file: where what was learnt stands while it is not the end."""
        self.way, self.processor, self.recipe, self.file = way, processor, recipe, file
        torch.manual_seed(recipe.seed)
        pupil = Pupil(build_resnet(arch)).to(processor.device)
        self.pupil = pupil.to(memory_format=processor.memory_format)
        how = TrainConfig(optimizer="adamw", lr=recipe.lr, weight_decay=recipe.weight_decay)
        self.optimizer = make_optimizer(self.pupil, how)
        self.scaler = processor.scaler()
        self.eyes, self.seconds = 0, 0.0

    def teach(self, workers: int | None, observer: Observer) -> ResNet:
        """The network at the end, to the same bits wherever it was gone on with.

        A signal ends it in order, and a file tells what was learnt. Raises DrError where the loss
        is no number.
        """
        self._go_on(observer)
        recipe, before, count = self.recipe, self.seconds, workers or machine.cores()
        stream, rest = Stream(recipe.seed, self.way), recipe.eyes - self.eyes
        drawn = batches(stream, rest, recipe.batch_size, count, start=self.eyes, observer=observer)
        self.pupil.train()
        began = kept = time.perf_counter()
        with interrupts.deferred():
            for batch in drawn:
                self._step(batch)
                now = time.perf_counter()
                self.seconds = before + now - began
                observer.progress(TEACHING, self.eyes, recipe.eyes)
                if interrupts.asked() or now - kept > SAVE_EVERY:
                    kept = now
                    self._save()
                    interrupts.check()
        return self.pupil.network

    def _step(self, batch: Taught) -> None:
        recipe, optimizer, scaler = self.recipe, self.optimizer, self.scaler
        step, steps = self.eyes // recipe.batch_size, -(-recipe.eyes // recipe.batch_size)
        rate = recipe.lr * min(1, (step + 1) / recipe.warmup)
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        loss = _loss(self.pupil, batch, self.way, self.processor, recipe)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if not torch.isfinite(loss):
            raise DrError(f"the loss of the drawn start is {loss.item()} in step {step + 1}")
        self.eyes += len(batch.grades)

    def _save(self) -> None:
        learnt = {
            "pupil": self.pupil.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "eyes": self.eyes,
            "seconds": self.seconds,
        }
        with whole(self.file) as aside:
            torch.save(learnt, aside)

    def _go_on(self, observer: Observer) -> None:
        """Takes what `_save` kept, if it did. Raises DrError where the file is something else."""
        if not self.file.is_file():
            return
        try:
            learnt = torch.load(self.file, map_location="cpu", weights_only=True)
            self.pupil.load_state_dict(learnt["pupil"])
            saved.load_optimizer(self.optimizer, learnt["optimizer"], "adamw")
            self.scaler.load_state_dict(learnt["scaler"])
            self.eyes, self.seconds = int(learnt["eyes"]), float(learnt["seconds"])
        except Exception as error:  # a foreign pickle raises what it likes
            raise DrError(f"{self.file} is no unfinished start: remove it") from error
        observer.note(f"start: gone on with after {words.count(self.eyes, 'drawn eye')}")


def _loss(
    pupil: Pupil, batch: Taught, way: Preprocessing, processor: Processor, recipe: Recipe
) -> Tensor:
    """Of the grade, and of each cell's share of each lesion."""
    pixels, grades, maps = (tensor.to(processor.device) for tensor in batch)
    inputs = normalise(pixels, way).contiguous(memory_format=processor.memory_format)
    with processor.autocast():
        logits, cells = pupil(inputs)
    loss = F.cross_entropy(logits.float(), grades)
    if not recipe.maps:
        return loss
    share = (maps.float() * (recipe.gain / 255)).clamp_max(1)
    share = F.interpolate(share, cells.shape[2:], mode="area")  # where 16 does not divide the size
    rare = share.mean((0, 2, 3), keepdim=True).clamp_min(1e-3).rsqrt().clamp_max(8)
    return loss + recipe.maps * F.binary_cross_entropy_with_logits(
        cells.float(), share, pos_weight=rare
    )


def judge(
    network: ResNet, way: Preprocessing, processor: Processor, recipe: Recipe
) -> dict[str, Any]:
    """Figures on eyes of the stream that it was not taught with."""
    network.eval()
    grades, logits = [], []
    for batch in batches(Stream(recipe.seed, way), recipe.judged, 64, 1, start=recipe.eyes):
        with torch.inference_mode(), processor.autocast():
            inputs = normalise(batch.pixels.to(processor.device), way)
            logits.append(network(inputs.contiguous(memory_format=processor.memory_format)).float())
        grades.append(batch.grades)
    true = torch.cat(grades).numpy()
    probabilities = torch.cat(logits).softmax(1).cpu().numpy()
    referable = referable_probability(probabilities)
    return {
        "eyes": len(true),
        "accuracy": float((probabilities.argmax(1) == true).mean()),
        "qwk": metrics.quadratic_weighted_kappa(true, probabilities.argmax(1)),
        "referable_auc": metrics.auc(true >= REFERABLE_FROM, referable),
    }
