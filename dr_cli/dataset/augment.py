"""A batch of crops, changed at random where it lies: on the processor or the GPU.

Every number comes from (seed, epoch, sample id), so a picture is changed in the same way whatever
batch, worker, rank or thread it falls to, and after `--resume`.

Images a second on one AVX2 thread at 512 (224) px, by examples/benchmarks/input.py: none 2,000
(10,500), flip 470 (2,600), standard 160 (990), strong 145 (830); torchvision's transforms on
Pillow pictures, doing what standard does, 95 (610).
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dr_cli import randomness
from dr_cli.dataset.illumination import even_out
from dr_cli.photographs.crop import Preprocessing

LEVELS = ("none", "flip", "turn", "standard", "strong")

# Of the picture's content, log-uniform; Huang et al., Diagnostics 2023, 13(10):1664.
SCALE = (0.87, 1.15)
TRANSLATION = 0.05  # of the side, either way: crops are centred on the field already
BRIGHTNESS = 0.2  # gain of exp(±this)
CONTRAST = 0.2  # the same, about the mean that normalisation subtracts
SATURATION = 0.3  # strong: 0 would be grey
CHANNEL_GAIN = 0.1  # strong: the colour cast that cameras differ by

# The columns of the random numbers: fixed, so that a new kind of change leaves the others alone.
_FLIP_X, _FLIP_Y, _ANGLE, _SCALE, _MOVE_X, _MOVE_Y, _BRIGHT, _CONTRAST, _SATURATE = range(9)
_GAINS = slice(9, 12)
_DRAWS = 12


def normalise(pixels: Tensor, way: Preprocessing) -> Tensor:
    """[N, 3, H, W] uint8 in [0, 255] -> float32: by the mean and deviation that `way` names, or
    with the light taken out."""
    gain, offset = _normalisation(way)
    return _affine(_lit(pixels, way), *_on(pixels.device, gain[None], offset[None]))


def _lit(pixels: Tensor, way: Preprocessing) -> Tensor:
    """uint8 [N, 3, H, W] -> a new float32 [N, 3, H, W]: in [0, 255], or evened out."""
    return even_out(pixels) if way.illumination == "evened" else pixels.float()


def augment(
    pixels: Tensor, way: Preprocessing, level: str, seed: int, epoch: int, ids: Any
) -> Tensor:
    """Changed at random and normalised, on the device of `pixels`.

    pixels: [N, 3, H, W] uint8; ids: [N] int, the samples' numbers (on the CPU, or the copy back
    makes a GPU wait). Returns [N, 3, H, W] float32.
    Levels: "none"; "flip": mirrored left-right and upside down, exactly; "turn": also turned by a
    quarter, exactly (square pictures alone); "standard": mirrored, and any
    rotation, scale, a little translation, brightness and contrast; "strong": also saturation and
    the gain of each channel. What comes in from outside the picture is black, as its border is.
    """
    if level not in LEVELS:
        raise ValueError(f"augmentation level {level!r} is none of {', '.join(LEVELS)}")
    if level == "none":
        return normalise(pixels, way)
    draws = randomness.uniform(seed, randomness.AUGMENT, epoch, np.asarray(ids), _DRAWS)
    if level in ("flip", "turn"):
        changed = _flip(pixels, draws)
        return normalise(_transpose(changed, draws) if level == "turn" else changed, way)
    moved = _move(_lit(pixels, way), draws)
    return _recolour(moved, way, draws, colour=level == "strong")


def _flip(pixels: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """Mirrored left-right, upside down, or both: three groups of the batch, each moved at once."""
    across, down = draws[:, _FLIP_X] < 0.5, draws[:, _FLIP_Y] < 0.5
    result = pixels.clone()
    for chosen, axes in ((across & ~down, [3]), (down & ~across, [2]), (across & down, [2, 3])):
        (rows,) = _on(pixels.device, np.flatnonzero(chosen))
        result.index_copy_(0, rows, pixels.index_select(0, rows).flip(axes))
    return result


def _transpose(pixels: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """Half of the pictures [N, 3, S, S] mirrored about their diagonal, in place: after `_flip` each
    of the eight ways that a square can lie is as frequent as another."""
    (rows,) = _on(pixels.device, np.flatnonzero(draws[:, _ANGLE] < 0.5))
    return pixels.index_copy_(0, rows, pixels.index_select(0, rows).transpose(2, 3))


def _move(values: Tensor, draws: NDArray[np.float64]) -> Tensor:
    """Mirrored, turned, scaled and shifted in one bilinear sampling, of float32 [N, 3, H, W]."""
    height, width = values.shape[2:]
    (matrices,) = _on(values.device, _matrices(draws, height / width))
    # As F.affine_grid, whose matrix product takes as long on a CPU as the sampling itself.
    x, y = (_centres(length, values.device) for length in (width, height))
    across = x[None, :, None] * matrices[:, None, :, 0]  # [N, W, 2]
    down = y[None, :, None] * matrices[:, None, :, 1] + matrices[:, None, :, 2]  # [N, H, 2]
    grid = across[:, None] + down[:, :, None]  # [N, H, W, 2]
    return F.grid_sample(values, grid, align_corners=False)


def _centres(length: int, device: torch.device) -> Tensor:
    """Pixels' centres along a side that goes from -1 to 1: [length] float32."""
    return (torch.arange(length, device=device, dtype=torch.float32) * 2 + (1 - length)) / length


def _matrices(draws: NDArray[np.float64], aspect: float) -> NDArray[np.float32]:
    """From places in the result to places in the source, both in [-1, 1]: [N, 2, 3].

    aspect: height over width; turning happens in pixels, where the two axes are alike.
    """
    angle = 2 * np.pi * draws[:, _ANGLE]
    zoom = np.exp(_between(draws[:, _SCALE], np.log(SCALE[0]), np.log(SCALE[1])))
    mirror_x = np.where(draws[:, _FLIP_X] < 0.5, -1.0, 1.0) / zoom
    mirror_y = np.where(draws[:, _FLIP_Y] < 0.5, -1.0, 1.0) / zoom
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.empty((len(draws), 2, 3), np.float32)
    matrix[:, 0, 0], matrix[:, 0, 1] = mirror_x * cos, -mirror_x * sin * aspect
    matrix[:, 1, 0], matrix[:, 1, 1] = mirror_y * sin / aspect, mirror_y * cos
    matrix[:, 0, 2] = 2 * _between(draws[:, _MOVE_X], -TRANSLATION, TRANSLATION)
    matrix[:, 1, 2] = 2 * _between(draws[:, _MOVE_Y], -TRANSLATION, TRANSLATION)
    return matrix


def _recolour(
    values: Tensor, way: Preprocessing, draws: NDArray[np.float64], colour: bool
) -> Tensor:
    """Brightness, contrast and normalisation as one multiply-add: float32 [0, 255] -> normalised.

    Not clipped to [0, 255]: a picture made brighter keeps its brightest parts apart.
    """
    norm_gain, norm_offset = _normalisation(way)
    bright = np.exp(_between(draws[:, _BRIGHT], -BRIGHTNESS, BRIGHTNESS))[:, None]
    contrast = np.exp(_between(draws[:, _CONTRAST], -CONTRAST, CONTRAST))[:, None]
    gain = norm_gain * bright * contrast  # [N, 3]; contrast about the mean, which becomes 0
    offset = norm_offset * contrast
    if not colour:
        return _affine(values, *_on(values.device, gain, offset))
    gain = gain * np.exp(_between(draws[:, _GAINS], -CHANNEL_GAIN, CHANNEL_GAIN))
    keep = np.exp(_between(draws[:, _SATURATE], -SATURATION, SATURATION))[:, None]
    own, shared, offset_ = _on(values.device, gain * keep, gain * (1 - keep), offset)
    grey = values.mean(dim=1, keepdim=True)
    result = _affine(values, own, offset_)
    return result.addcmul_(grey, shared[:, :, None, None])


def _between(uniform: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    return low + (high - low) * uniform


def _normalisation(way: Preprocessing) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gain and offset of each channel: normalised = gain * pixel + offset. What is evened out has
    been normalised where it lay."""
    if way.illumination == "evened":
        return np.ones(3), np.zeros(3)
    mean, std = np.array(way.mean), np.array(way.std)
    return 1 / (255 * std), -mean / std


def _on(device: torch.device, *arrays: NDArray[Any]) -> list[Tensor]:
    """Small arrays as tensors on the device; reals as float32, which every device has."""
    tensors = [torch.from_numpy(a.astype(np.float32) if a.dtype.kind == "f" else a) for a in arrays]
    return [tensor.to(device, non_blocking=True) for tensor in tensors]


def _affine(values: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    """values [N, 3, H, W] (overwritten) * gain [N, 3] + offset [N, 3].

    Two steps rather than a fused one: each rounds in one way only, so the bits do not depend on
    how a batch was cut among vector lanes and threads.
    """
    return values.mul_(gain[:, :, None, None]).add_(offset[:, :, None, None])
