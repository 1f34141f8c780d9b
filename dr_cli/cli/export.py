"""`dr export`: a trained run -> one file that other programs run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dr_cli import words
from dr_cli.cli import options
from dr_cli.cli.console import Console
from dr_cli.cli.help import DATA
from dr_cli.cli.inputs import list_photographs
from dr_cli.errors import UsageError
from dr_cli.events import Observer
from dr_cli.runs import find_newest_run

if TYPE_CHECKING:
    from dr_cli.network.export import Agreement
    from dr_cli.photographs.crop import Crop, Preprocessing

SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
CHECKED = 64  # photographs at most
EXAMPLES = """dr export runs/resnet18                    # writes runs/resnet18/model.onnx
dr export runs/resnet18 --check photographs/ --out clinic.onnx
dr export runs/one runs/two --format torch --out both.pt2"""
Runs = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="RUN", autocompletion=options.suggest_runs,
        help="A run folder or its model.safetensors; of several the mean of their probabilities. "
        "[default: the newest finished run]",
    ),
]  # fmt: skip
Format = Annotated[
    Literal["onnx", "torch"],
    typer.Option("--format", help="ONNX (the extra `onnx`), or a program of torch.export."),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The file. [default: model.onnx or model.pt2 in the run]"),
]
Check = Annotated[
    list[str] | None,
    typer.Option(
        metavar="INPUT", rich_help_panel=DATA,
        help="Photographs or folders to compare it with PyTorch on; may be repeated. "
        "[default: 16 drawn eyes]",
    ),
]  # fmt: skip


def command(
    runs: Runs = None,
    form: Format = "onnx",
    out: Out = None,
    check: Check = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a trained run as one file for other programs; prints its path.

    The file takes crops and gives probabilities, grade and referral; it is compared with PyTorch
    before it is kept.
    """
    sources = runs or [find_newest_run().folder]
    if len(sources) > 1 and out is None:
        raise UsageError("several runs become one file: name it with --out FILE")
    file = out or _folder(sources[0]) / f"model{SUFFIX[form]}"
    if file.suffix != SUFFIX[form]:
        raise UsageError(f"--out {file}: a file of --format {form} ends in {SUFFIX[form]}")
    with Console(quiet) as console:
        found = export(sources, file, form, check, console)
        others = f"{found.other:,} graded or referred differently" if found.other else "all alike"
        kind = "drawn eye" if check is None else "photograph"
        console.note(
            f"against PyTorch on {words.count(found.photographs, kind)}: "
            f"probabilities differ by at most {found.apart:.1g}, {others}"
        )
    typer.echo(str(file))


def export(
    sources: list[Path], file: Path, form: str, check: list[str] | None, observer: Observer
) -> "Agreement":
    """Writes the file and says how it agrees with PyTorch. See `network.export.export`."""
    import numpy as np

    from dr_cli.network import export as core
    from dr_cli.photographs.crop import Preprocessing
    from dr_cli.runs import Run, read_record

    way = Preprocessing.from_dict(read_record(Run(sources[0]).networks()[0]).preprocessing)
    crops = _load(check, way, observer) if check else _draw(way)
    observer.note(f"{form}: tracing the network, then comparing it on {len(crops)} crops")
    return core.export(sources, file, form, np.stack([crop.pixels for crop in crops]))


def _load(names: list[str], way: "Preprocessing", observer: Observer) -> "list[Crop]":
    """The first photographs that can be read; UsageError where none can."""
    from dr_cli.photographs.crop import load_crop
    from dr_cli.photographs.decoding import UnreadableImage

    crops = []
    for path in list_photographs(names):
        try:
            crops.append(load_crop(path, way))
        except UnreadableImage as error:
            observer.warning(f"{path}: {error.reason}")
        if len(crops) == CHECKED:
            break
    if not crops:
        raise UsageError(f"--check: no photograph in {', '.join(names)}")
    return crops


def _draw(way: "Preprocessing") -> "list[Crop]":
    from PIL import Image

    from dr_cli.photographs.crop import from_image
    from dr_cli.sample.drawn_set import draw

    eyes = (draw(0, k, "left", k % 5, max(64, way.size)) for k in range(16))
    return [from_image(Image.fromarray(eye.pixels), way) for eye in eyes]


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent
