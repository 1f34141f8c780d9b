"""The options of a run -> the `dr train` line that repeats it."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dr_cli.scoring.record import Record
from dr_cli.training.config import TrainConfig, flag

SAMPLE_SET = "the built-in sample set"


def spell(
    data: Mapping[str, Any], options: Mapping[str, Any], changes: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The line, with every option that is not its default; where --resume changed some, another
    line each."""
    began = {change["option"]: change["from"] for change in reversed(changes)}
    began = {name: value for name, value in began.items() if name in options}
    first = " ".join(["dr", "train", *_spell_data(data), *_spell_options({**options, **began})])
    later = (
        f"dr train --resume RUN {flag(change['option'])} {shlex.quote(str(change['to']))}  "
        f"# after epoch {change['after_epoch']}"
        for change in changes
    )
    return "\n".join([first, *later])


def name_start(options: Mapping[str, Any]) -> str:
    """What the weights were before training, in words: no path is told."""
    if options.get("pretrained"):
        return "ImageNet"
    if options.get("start") == "drawn":
        return "drawn eyes"
    return "a local file" if options.get("weights") else "scratch"


def without_paths(options: Mapping[str, Any]) -> Record:
    """The options, with a word in the place of each path."""
    told = dict(options)
    if told.get("weights"):
        told["weights"] = "FILE"
    if not re.fullmatch(r"[\d.]+|test", str(told.get("val", "test"))):
        told["val"] = "PATH"
    return told


def _spell_data(data: Mapping[str, Any]) -> list[str]:
    """DATA, its columns and --grade-map on the line; nothing names the built-in sample set."""
    if data.get("root") == SAMPLE_SET:
        return []
    given = data.get("source") or data.get("root")
    words = [shlex.quote(given) if given else "DATA"]
    for key, column in (data.get("columns") or {}).items():
        name = key if key == "grade_map" else f"{key}_column"
        words += [flag(name), shlex.quote(str(column))]
    return words


def _spell_options(options: Mapping[str, Any]) -> list[str]:
    """Every option that is not its default, as on the `dr train` line."""
    words = []
    for key, default in TrainConfig().to_dict().items():
        value = options.get(key, default)
        if value in (default, None):
            continue
        if isinstance(default, bool):
            words.append(flag(key if value else f"no_{key}"))
        else:
            words += [flag(key), shlex.quote(str(value))]
    return words
