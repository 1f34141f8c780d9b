"""Fits the weights that `dr_cli/photographs/quality.py` reads: `dr_cli/photographs/quality.npz`.

    python examples/benchmarks/fit_quality.py FOLDER... --others FOLDER...

FOLDERs hold photographs of the fundus, --others any other photographs. Every second file of each
is used; the rest is what `quality.py` reports on. Photographs are degraded as that script does it,
their measures (`dr_cli/photographs/measures.py`) taken, and a network of one hidden layer learns
what share each has of "good" and of each reason to refuse it: a photograph degraded by a severity
s below 1 is good by 1 - s. Torch fits it; numpy runs it.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from degrade import DEGRADATIONS, Picture, Rng, draw_eye, list_half, load
from not_fundus import DRAWN, disguise
from numpy.typing import NDArray
from PIL import Image

from dr_cli.photographs.field import find_field
from dr_cli.photographs.measures import measure
from dr_cli.photographs.quality import REASONS, WEIGHTS, weigh

HIDDEN = 32
Floats = NDArray[np.float32]
Example = tuple[Floats, Floats, int]  # measures, shares, kind


def vary(picture: Picture, rng: Rng) -> Picture:
    """Another camera: its colours, its exposure, its frame; all of it gradable."""
    pixels = np.asarray(picture, np.float32) / 255
    gains = rng.uniform(0.85, 1.15) * rng.uniform((0.93, 0.85, 0.7), (1.07, 1.15, 1.3))
    pixels = np.clip(pixels ** rng.uniform(0.88, 1.15) * gains, 0, 1)
    picture = Image.fromarray((pixels * 255).astype(np.uint8))
    if rng.random() < 0.3:  # squashed
        shape = (picture.width, round(picture.height * rng.uniform(0.75, 1.33)))
        picture = picture.resize(shape, Image.Resampling.BICUBIC)
    if rng.random() < 0.06:  # the middle alone, without a border
        left, top, right, bottom = find_field(picture).box
        x, y, half = (left + right) / 2, (top + bottom) / 2, min(right - left, bottom - top) * 0.34
        picture = picture.crop(tuple(int(v) for v in (x - half, y - half, x + half, y + half)))
    return picture


def shrink(picture: Picture, rng: Rng) -> Picture:
    """Mostly as it is, else a thumbnail."""
    if rng.random() < 0.75:
        return picture
    side = int(np.exp(rng.uniform(np.log(28), np.log(200))))
    picture = picture.copy()
    picture.thumbnail((side, side), rng.choice([Image.Resampling.BICUBIC, Image.Resampling.BOX]))
    return picture


def take(picture: Picture, shares: dict[str, float], kind: int) -> Example:
    target = np.zeros(len(REASONS), np.float32)
    for reason, share in shares.items():
        target[REASONS.index(reason)] += share
    return measure(picture, find_field(picture)), target, kind


def examples_of(source: Path | int, seed: int, copies: int) -> list[Example]:
    """Of one photograph or drawn eye: as it is twice, varied, degraded."""
    rng = np.random.default_rng([seed, hash_of(source)])
    found = []
    for copy in range(copies):
        picture = draw_eye(source, rng) if isinstance(source, int) else load(source, rng)
        if copy == 0:
            found.append(take(picture, {"": 1.0}, 0))
            continue
        if rng.random() < 0.6:
            picture = vary(picture, rng)
        if copy == 1:
            found.append(take(shrink(picture, rng), {"": 1.0}, 0))
            continue
        name = list(DEGRADATIONS)[rng.integers(len(DEGRADATIONS))]
        degrade, reason = DEGRADATIONS[name]
        severity = rng.uniform(1, 1.6) if rng.random() < 0.6 else rng.uniform(0.1, 0.9)
        if name in ("colours", "half black"):
            severity = 1.0
        picture = degrade(picture, severity, rng)
        if name in ("haze", "darkness") and rng.random() < 0.3:
            other = "blur" if name == "haze" else "noise"
            picture = DEGRADATIONS[other][0](picture, rng.uniform(0, 0.5) * severity, rng)
        lost = min(1.0, severity)
        picture = shrink(picture, rng) if name not in ("noise", "JPEG", "blur") else picture
        found.append(take(picture, {"": 1 - lost, reason: lost}, 1))
    return found


def others_of(source: Path | str, seed: int, copies: int) -> list[Example]:
    """Of a picture of something else, or of a kind drawn here."""
    rng = np.random.default_rng([seed, hash_of(source)])
    found = []
    for copy in range(copies):
        if isinstance(source, Path):
            picture = load(source, rng)
            picture = disguise(picture, rng) if copy else picture
        else:
            picture = DRAWN[source.rstrip("0123456789")](rng)
        found.append(take(shrink(picture, rng), {"not a fundus photograph": 1.0}, 2))
    return found


def hash_of(source: Path | str | int) -> int:
    """The same in every process."""
    return source if isinstance(source, int) else int.from_bytes(str(source).encode()[-12:], "big")


def gather(args: argparse.Namespace) -> Iterator[Example]:
    photographs = [file for folder in args.folders for file in list_half(folder, 0)]
    eyes = range(args.eyes)
    others = [file for folder in args.others for file in list_half(folder, 0)]
    kinds = [f"{kind}{number}" for kind in DRAWN for number in range(12)]
    todo: list[tuple[Any, Sequence[Any], int]] = [
        (examples_of, photographs, args.copies), (examples_of, eyes, 5),
        (others_of, others, 5), (others_of, kinds, 12),
    ]  # fmt: skip
    with ProcessPoolExecutor(args.processes) as pool:
        for make, sources, copies in todo:
            work = partial(make, seed=args.seed, copies=copies)
            for some in pool.map(work, sources, chunksize=4):
                yield from some


def fit(measures: Floats, shares: Floats, kinds: NDArray[np.int64], seed: int) -> dict[str, Floats]:
    """Standardised measures -> tanh -> shares; the loss is the cross-entropy of the shares."""
    torch.manual_seed(seed)
    mean, deviation = measures.mean(axis=0), measures.std(axis=0) + 1e-3
    inputs = torch.from_numpy(((measures - mean) / deviation).clip(-5, 5))
    targets = torch.from_numpy(shares)
    weight = torch.ones(len(kinds))
    weight[torch.from_numpy(kinds == 0)] = 2.0
    first, second = torch.nn.Linear(inputs.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, len(REASONS))
    network = torch.nn.Sequential(first, torch.nn.Tanh(), torch.nn.Dropout(0.1), second)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    epochs, size = 60, 256
    steps = epochs * (len(inputs) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for _ in range(epochs):
        order = torch.randperm(len(inputs))
        for batch in order[: len(order) // size * size].split(size):
            seen = inputs[batch] + 0.08 * torch.randn(size, inputs.shape[1])
            losses = F.cross_entropy(network(seen), targets[batch], reduction="none")
            loss = (losses * weight[batch]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    print(f"loss {loss.item():.3f} over {len(inputs):,} pictures")
    tensors = {
        "hidden": first.weight.T, "hidden_bias": first.bias,
        "out": second.weight.T, "out_bias": second.bias,
    }  # fmt: skip
    arrays = {name: one.detach().numpy().astype(np.float32) for name, one in tensors.items()}
    return {"mean": mean, "deviation": deviation, **arrays}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--others", nargs="*", type=Path, default=[])
    parser.add_argument("--eyes", type=int, default=400, help="drawn besides")
    parser.add_argument("--copies", type=int, default=8, help="of each photograph")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--measures", type=Path, help="kept here, and read where it is there")
    args = parser.parse_args()
    if args.measures and args.measures.exists():
        with np.load(args.measures) as kept:
            measures, shares, kinds = kept["measures"], kept["shares"], kept["kinds"]
    else:
        columns = zip(*gather(args), strict=True)
        measures, shares, kinds = (np.stack([np.asarray(v) for v in column]) for column in columns)
        if args.measures:
            np.savez(args.measures, measures=measures, shares=shares, kinds=kinds)
    weights = fit(measures, shares, kinds, args.seed)
    np.savez(WEIGHTS, **weights, levels=np.arange(5, dtype=np.float32))
    good = weigh(measures)[:, 0]
    logit = np.log(good + 1e-9) - np.log(1 - good + 1e-9)
    lost = np.median(logit[(shares[:, 0] == 0)])
    levels = [lost, np.log(2), *np.quantile(logit[kinds == 0], (0.1, 0.5, 0.995))]
    np.savez(WEIGHTS, **weights, levels=np.array(levels, np.float32))
    print("levels", np.round(levels, 2))
    for kind, name in enumerate(("untouched", "degraded", "others")):
        spread = np.quantile(logit[kinds == kind], (0.005, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95))
        print(f"{name:10}", spread.round(2))


if __name__ == "__main__":
    main()
