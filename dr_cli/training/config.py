"""Every option that decides a training run, once: its default, its meaning, its check.

Free of torch. `cli.options.with_fields` makes the flags from these fields, `config.json` holds
them and `--config FILE` reads them.
"""

import dataclasses
import difflib
import stat
import tomllib
import typing
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal

from dr_cli.errors import UsageError
from dr_cli.labels.layouts import DEFAULT_VAL

SMOOTHED = ("ce", "ce+mse")  # losses with a target distribution that smoothing can flatten
BEFORE = {"illumination": "kept"}  # what a run did that has no word of an option
MOST_BYTES = 1_000_000  # of a file of options
DEFAULT_LR = {"sgd": 0.01, "adamw": 1e-3}


def _option(default: Any, text: str, low: float | None = None) -> Any:
    """A field with its meaning (units included) and, for a number, the least it may be."""
    return field(default=default, metadata={"help": text, "low": low})


@dataclass(frozen=True)
class TrainConfig:
    """The options of `dr train`. `None` means chosen when the run starts, and recorded then.

    Defaults are the recipe that taught most on validation photographs of APTOS 2019, and what gave
    nothing is off: examples/recipes.md has the figures, by examples/benchmarks/recipes.py.
    """

    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = _option(
        "resnet18", "Network."
    )
    pretrained: bool = _option(False, "Start from ImageNet weights (torchvision IMAGENET1K_V1).")
    weights: str | None = _option(
        None, "Local start: a .safetensors file, a run folder, or a .pth state dict."
    )
    start: Literal["scratch", "drawn"] = _option(
        "scratch",
        "Drawn: weights that drawn eyes have taught, made once a machine for an architecture and "
        "size, which takes minutes.",
    )
    epochs: int = _option(10, "Passes over the training split.", low=1)
    size: int | None = _option(
        None,
        "Side of the square crop in pixels. [default: auto, never upsample, at most 512]",
        low=32,
    )
    illumination: Literal["evened", "kept"] = _option(
        "evened",
        "Evened: each pixel less the mean round it, over the deviation there, as carries over to "
        "other cameras; kept: as photographed.",
    )
    batch_size: int | None = _option(
        None,
        "Photographs a step. [default: auto, 64 on a GPU, 16 on a CPU, fewer for a small set]",
        low=1,
    )
    seed: int = _option(0, "Decides split, order, augmentation and initial weights.", low=0)
    optimizer: Literal["sgd", "adamw"] = _option("adamw", "Optimiser.")
    lr: float | None = _option(
        None, "Peak learning rate. [default: 0.01 for sgd, 0.001 for adamw]", low=0
    )
    momentum: float = _option(0.9, "Momentum of sgd.", low=0)
    nesterov: bool = _option(True, "Nesterov momentum for sgd.")
    weight_decay: float = _option(5e-4, "Weight decay.", low=0)
    schedule: Literal["cosine", "constant"] = _option("cosine", "Learning rate over the run.")
    warmup: float = _option(1.0, "Epochs of linear warm-up.", low=0)
    ema: float = _option(0.0, "Decay of the weights' moving average a step; 0 is off.", low=0)
    loss: Literal["ce", "ordinal", "mse", "ce+mse", "focal"] = _option("ce", "What is minimised.")
    balance: Literal["none", "oversample", "weights"] = _option(
        "none", "How rare grades are favoured."
    )
    augment: Literal["none", "flip", "turn", "standard", "strong"] = _option(
        "turn", "Random changes to training crops."
    )
    label_smoothing: float = _option(0.0, "Share of the label spread over all grades.", low=0)
    decision: Literal["qwk", "accuracy", "argmax", "thresholds"] = _option(
        "qwk",
        "What the grades are decided for: qwk and accuracy cut the expected grade where validation "
        "scores best in it, argmax takes the likeliest grade; thresholds is qwk.",
    )
    both_eyes: bool = _option(
        False, "Grade a patient's two eyes together: each by what the other shows, too."
    )
    val: str = _option(
        str(DEFAULT_VAL),
        "Validation: a fraction of train by patient, a folder or table of its own, or `test`.",
    )
    split_by: Literal["dataset", "patient"] = _option(
        "dataset", "Keep the data set's own test split, or make a clean one by patient."
    )
    allow_overlap: bool = _option(
        False, "Start from --weights RUN though it has seen test images of this run."
    )
    folds: int | None = _option(
        None, "Cross-validate by patient: this many runs, each holding out another part.", low=2
    )
    seeds: int | None = _option(
        None,
        "Train this many networks on the one split of --seed; initial weights, order and "
        "augmentation differ.",
        low=2,
    )
    patience: int | None = _option(
        None, "Stop after this many epochs without a better validation QWK.", low=1
    )
    save_every: float = _option(
        10.0,
        "Minutes between savings within an epoch, for --resume; each epoch is saved, too.",
        low=0,
    )
    max_bad: float = _option(
        0.01,
        "Share of the photographs that may become unreadable while it trains; more stop it.",
        low=0,
    )
    compile: bool = _option(
        False, "Compile the network: a minute at first, then up to 1.15 times as fast on a GPU."
    )
    deterministic: bool = _option(
        False, "The same bits from a GPU, too, each time on the same machine; slower there."
    )

    def __post_init__(self) -> None:
        """Raises UsageError naming the flag for a value out of range or a clash of two."""
        if self.decision == "thresholds":  # as `grades.name_decision`, which brings numpy
            object.__setattr__(self, "decision", "qwk")
        for f in dataclasses.fields(self):
            value, low, among = getattr(self, f.name), f.metadata["low"], choices(f.name)
            if among and value not in among:
                raise UsageError(f"{flag(f.name)} is {value!r}: choose one of {', '.join(among)}")
            if low is not None and value is not None and not value >= low:
                raise UsageError(f"{flag(f.name)} is {value}: it must be at least {low:g}")
        if self.pretrained and self.weights:
            raise UsageError("--pretrained and --weights both name a start: give one of them")
        if self.start == "drawn" and (self.pretrained or self.weights):
            other = "--pretrained" if self.pretrained else "--weights"
            raise UsageError(f"--start drawn and {other} both name a start: give one of them")
        if self.folds and self.seeds:
            raise UsageError("--seeds and --folds each make a folder of runs: give one of them")
        if self.folds and self.split_by == "patient":
            raise UsageError("--folds splits by patient already: leave --split-by out")
        if self.folds and not 0 < (number(self.val) or 0) < 1:
            raise UsageError("--folds takes validation from the other folds: give --val FRACTION")
        if (share := number(self.val)) is not None and not 0 < share < 1:
            raise UsageError(f"--val {self.val}: give a fraction between 0 and 1, a path, or test")
        if not self.ema < 1:
            raise UsageError(f"--ema is {self.ema}: a decay lies in [0, 1), such as 0.99")
        if not self.label_smoothing < 1:
            raise UsageError(f"--label-smoothing is {self.label_smoothing}: it lies in [0, 1)")
        if self.label_smoothing and self.loss not in SMOOTHED:
            raise UsageError(
                f"--label-smoothing works with --loss {' or '.join(SMOOTHED)}, not with {self.loss}"
            )
        own = (TrainConfig.momentum, TrainConfig.nesterov)
        if self.optimizer != "sgd" and (self.momentum, self.nesterov) != own:
            raise UsageError("--momentum and --no-nesterov are sgd's: give --optimizer sgd, too")
        if self.lr == 0:
            raise UsageError("--lr is 0: nothing would be learned")

    @property
    def learning_rate(self) -> float:
        """The peak learning rate: --lr, else the optimiser's own default."""
        return DEFAULT_LR[self.optimizer] if self.lr is None else self.lr

    def list_seeds(self) -> range:
        """Of --seeds; none without."""
        return range(self.seed, self.seed + (self.seeds or 0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `config.json` holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any], where: str) -> "TrainConfig":
        """Raises UsageError naming `where` for an unknown name or a value of a wrong type."""
        hints, read = typing.get_type_hints(cls), {}
        for name, value in values.items():
            if name not in hints:
                raise UsageError(
                    f"{where}: {name!r} is no option of dr train{nearest(name, hints)}"
                )
            kinds = _kinds(hints[name])
            try:
                read[name] = _convert(value, kinds)
            except TypeError:
                said = " | ".join("None" if k is NoneType else k.__name__ for k in kinds)
                raise UsageError(f"{where}: {name} = {value!r} is no {said}") from None
        return cls(**read)


def choices(name: str) -> tuple[str, ...]:
    """What a field may be, where it is one of some words."""
    hint = typing.get_type_hints(TrainConfig)[name]
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def number(text: str) -> float | None:
    """A text's number, as of --val; None where it is none."""
    try:
        return float(text)
    except ValueError:
        return None


def flag(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")


def nearest(name: str, known: Iterable[str]) -> str:
    """What was meant by a name that is not known, as the end of a sentence."""
    alike = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {alike[0]!r}?" if alike else "; see dr train --help"


def read_config(path: Path) -> dict[str, Any]:
    """The options in a TOML file, names with - or _. Raises UsageError where it cannot be read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise UsageError(f"--config {path} is no file")
        if found.st_size > MOST_BYTES:
            raise UsageError(f"--config {path} is too large for a file of options")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # TOML's own, no UTF-8, a number too long
        raise UsageError(f"--config {path} is not TOML: {error}") from error
    return {name.replace("-", "_"): value for name, value in values.items()}


def _kinds(hint: Any) -> tuple[type, ...]:
    """The plain types of a field: those of a union, str for one of some words."""
    return (str,) if typing.get_origin(hint) is Literal else typing.get_args(hint) or (hint,)


def _convert(value: Any, kinds: tuple[type, ...]) -> Any:
    """The value as a field of these types holds it; TypeError where it does not fit."""
    if value == "auto" and NoneType in kinds:
        return None
    if type(value) in kinds:  # a bool is no int
        return value
    for kind in (float, str):  # --val takes a fraction, too
        if kind in kinds and type(value) in (int, float):
            return kind(value)
    raise TypeError
