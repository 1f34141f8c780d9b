"""Where a network starts from: ImageNet's weights, a file, or an earlier run.

Nothing read here is ever executed: safetensors holds numbers alone, and torch files are opened
with `weights_only=True`.
"""

import contextlib
import http.client
import pickle
import re
import socket
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dr_cli import runs, words
from dr_cli.errors import DrError, UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.network.resnet import ARCHITECTURES

HEAD = ("fc.weight", "fc.bias")
NESTED = ("state_dict", "model_state_dict", "model", "network")  # where trainers put a state dict
# What lightly and others name who keep a backbone as a sequence: conv1, bn1, relu, maxpool, layers.
SEQUENCE = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}
BODY = ("conv1", "bn1", "layer", "fc")
SILENCE = 30.0  # seconds without a byte (as behind many firewalls): a download is given up

State = dict[str, Tensor]


def load_pretrained(network: nn.Module, arch: str, observer: Observer = NOTHING) -> None:
    """Fill all of `network` but its head with torchvision's IMAGENET1K_V1 weights of `arch`.

    From torch.hub's cache, else downloaded there, with the checksum checked and nothing left
    behind by a download that broke off. Raises DrError where they can be neither found nor
    fetched, or are not what they should be; the network is untouched then.
    """
    from torchvision.models import get_model_weights  # here alone: importing it takes 2 s

    weights = get_model_weights(arch)["IMAGENET1K_V1"]
    file = Path(torch.hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    cached = file.exists()
    if not cached:
        observer.note(f"downloading ImageNet weights of {arch} from {weights.url} to {file.parent}")
    shown = sys.stderr.isatty() and observer is not NOTHING
    try:
        with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as after:
            after.callback(socket.setdefaulttimeout, socket.getdefaulttimeout())
            socket.setdefaulttimeout(SILENCE)  # else torch.hub waits for ever on a mute host
            state = weights.get_state_dict(
                progress=shown, check_hash=True, map_location="cpu", weights_only=True
            )
        _fill(network, state, str(file))
    except Exception as error:
        if cached or isinstance(error, UsageError):
            raise DrError(f"{_unreadable(file, error)}; delete it to download it again") from error
        if not isinstance(error, OSError | http.client.HTTPException | RuntimeError):
            raise
        raise DrError(
            f"no ImageNet weights for {arch}: {weights.url} cannot be fetched ({_brief(error)}); "
            f"carry that file over to {file.parent}, or give --weights FILE or --no-pretrained"
        ) from error


def load_start(network: nn.Module, source: Path | str) -> str:
    """Fill `network` from a file or a run, and say in a sentence what was loaded.

    source: a `.safetensors` file, a run folder, or a state dict saved by torch (`.pth`, `.pt`),
    alone or under a trainer's usual names. A head of another width is left out: the network
    keeps its own. Raises UsageError, the network untouched, on anything that does not fit.
    """
    path = Path(source)
    file = path / runs.MODEL if path.is_dir() else path
    if not file.is_file():
        kind = "run with weights" if path.is_dir() else "file or run"
        raise UsageError(f"--weights: no {kind} at {path} (looked for {file})")
    return _fill(network, _read(file), str(path))


def architecture(state: Mapping[str, Tensor]) -> str | None:
    """The name of the ResNet that a state dict belongs to, such as "resnet50"; None for others.

    The number in a ResNet's name counts its layers: one convolution before the blocks, two or
    three in each of them, and the head.
    """
    blocks = {m[0] for key in state if (m := re.match(r"layer[1-4]\.\d+\.", key))}
    if not blocks or "conv1.weight" not in state:
        return None
    convolutions = 3 if "layer1.0.conv3.weight" in state else 2
    return f"resnet{2 + convolutions * len(blocks)}"


def _read(file: Path) -> State:
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return _rename(load_file(file))
        with warnings.catch_warnings(action="ignore"):  # torch's doubts about foreign pickles
            return _unwrap(torch.load(file, map_location="cpu", weights_only=True))
    except Exception as error:  # safetensors, zipfile, pickle and torch each raise their own
        raise UsageError(_unreadable(file, error)) from error


def _unwrap(saved: Any) -> State:
    """The state dict within what a trainer saved, under the names that `ResNet` gives."""
    while isinstance(saved, Mapping) and (key := next((k for k in NESTED if k in saved), None)):
        saved = saved[key]
    if not isinstance(saved, Mapping):
        return {}
    state = {k: v for k, v in saved.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return _rename(state)


def _rename(state: State) -> State:
    """The same under torchvision's names, without what stands beside the network (another encoder,
    a queue of contrastive learning).

    "module." from DataParallel, "_orig_mod." from torch.compile, "model." from Lightning,
    "encoder_q." from self-supervision: whatever stands before the first convolution, the only one
    of three channels.
    """
    firsts = [k for k, v in state.items() if v.ndim == 4 and v.shape[1] == 3]
    named = [k for k in firsts if k.endswith("conv1.weight")]
    numbered = [k for k in firsts if k == "0.weight" or k.endswith(".0.weight")]
    if not named and not numbered:
        return state
    if named:
        prefix = min(named, key=len).removesuffix("conv1.weight")
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    prefix = min(numbered, key=len).removesuffix("0.weight")
    inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    parts = {k: k.partition(".") for k in inner}
    return {
        SEQUENCE.get(first, first) + dot + rest: inner[k] for k, (first, dot, rest) in parts.items()
    }


def _fill(network: nn.Module, state: State, where: str) -> str:
    """Load `state` into `network` if all of it fits, and say so; UsageError if not."""
    own: State = network.state_dict()
    beside = [key for key in state if not key.startswith(BODY)]
    head_of_its_own = [key for key in state if key.startswith("fc.") and key not in HEAD]
    state = {key: value for key, value in state.items() if key not in {*beside, *head_of_its_own}}
    arch, theirs = architecture(own), architecture(state)
    if theirs is None:
        raise UsageError(f"{where} holds no weights of a ResNet: {arch} cannot start from it")
    if theirs != arch:
        advice = f"use --arch {theirs}" if theirs in ARCHITECTURES else "no --arch fits them"
        raise UsageError(f"{where} holds weights of {theirs}, not of {arch}: {advice}")
    head = state.get(HEAD[0])
    if head is not None and head.ndim != 2:
        raise UsageError(f"{where} does not fit: {HEAD[0]} is no matrix")
    keeps_head = all(key in state and state[key].shape == own[key].shape for key in HEAD)
    wanted = [key for key in own if keeps_head or key not in HEAD]
    # files from before torch 0.4.1 do not count the batches
    missing = [key for key in wanted if key not in state and "num_batches" not in key]
    unknown = [key for key in state if key not in own]
    if missing or unknown:
        wrong = f"lacks {missing[0]}" if missing else f"has an unknown {unknown[0]}"
        raise UsageError(f"{where} {wrong}: it is not a whole {arch} as torchvision names it")
    start = {key: state[key] for key in wanted if key in state}
    for key, tensor in start.items():
        if tensor.shape != own[key].shape:
            shapes = f"{list(tensor.shape)} where {arch} has {list(own[key].shape)}"
            raise UsageError(f"{where} does not fit: {key} is {shapes}")
        if tensor.is_complex():
            raise UsageError(f"{where} holds complex numbers, in {key}")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise UsageError(f"{where} holds no plain numbers, in {key}: save them as float32")
        start[key] = tensor.to(own[key].dtype)  # as they will be: what is finite in 64 bits may not
        if not start[key].isfinite().all():
            raise UsageError(f"{where} holds numbers that are not finite, in {key}")
    network.load_state_dict({**own, **start})
    if keeps_head:
        told = f"started from {where} ({arch}, head included)"
    else:
        old = "it has no head, which is" if head is None else f"its head of {len(head)} is"
        told = f"started from {where} ({arch}); {old} replaced by a new one of {len(own[HEAD[0]])}"
    if left := [*beside, *head_of_its_own]:
        told += (
            f"; {words.count(len(left), 'tensor')} beside the network left out, such as {left[0]}"
        )
    return told


def _unreadable(file: Path, error: Exception) -> str:
    if isinstance(error, UsageError):
        return str(error)
    if isinstance(error, pickle.UnpicklingError):
        return f"{file} holds more than numbers and was not opened: save its state_dict alone"
    if isinstance(error, OSError):
        return f"{file} cannot be read ({_brief(error)})"
    return f"{file} is damaged, cut off, or no file of weights"


def _brief(error: Exception) -> str:
    """A library's message on one line."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return " ".join(str(reason).split())[:160] or type(error).__name__
