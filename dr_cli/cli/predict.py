"""`dr predict`: photographs -> grades."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dr_cli.cli import options
from dr_cli.cli.console import Console
from dr_cli.cli.help import DATA, MACHINE, NETWORK
from dr_cli.cli.inputs import Passed, count, list_photographs
from dr_cli.cli.resume import Begun
from dr_cli.cli.rows import Tally, print_records
from dr_cli.cli.tables import while_read
from dr_cli.errors import DrError, UsageError
from dr_cli.events import NOTHING, Observer
from dr_cli.ranks import ALONE, Ranks
from dr_cli.runs import Run, counted_split, find_newest_run, read_record

if TYPE_CHECKING:
    from dr_cli.labels.owners import Whose
    from dr_cli.network.grader import Grader

Record = dict[str, Any]
EXAMPLES = """dr predict image.jpeg
dr predict photographs/ > grades.csv
dr predict photographs/ --resume grades.csv
dr predict photographs/ --run runs/resnet18 --explain heatmaps/
dr predict clinic/ --pair --labels clinic/patients.csv
find photographs -name '*.jpg' -print0 | dr predict -0 --format jsonl"""
GRADING = "grading"
Inputs = Annotated[
    list[str] | None,
    typer.Argument(metavar="INPUT", help="Photographs, folders, or - for paths on stdin."),
]
Runs = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="RUN", rich_help_panel=NETWORK, autocompletion=options.suggest_runs,
        help="A run folder or its model.safetensors; given more than once, their mean. "
        "[default: the newest finished run]",
    ),
]  # fmt: skip
Format = Annotated[
    Literal["table", "csv", "json", "jsonl"] | None,
    typer.Option("--format", help="[default: table on a terminal, else csv]"),
]
Null = Annotated[
    bool,
    typer.Option(
        "-0",
        "--null",
        help="Paths on stdin end in NUL, as of find -print0.",
        rich_help_panel=DATA,
    ),
]
Explain = Annotated[
    Path | None,
    typer.Option(
        file_okay=False, metavar="FOLDER", help="Folder for heatmaps; each row names its own."
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False, metavar="FILE",
        help="Csv to go on with: photographs that have a row are passed over, rows come behind.",
    ),
]  # fmt: skip
Tta = Annotated[
    bool,
    typer.Option(
        "--tta", help="Mean over eight views: as many times slower.", rich_help_panel=NETWORK
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", rich_help_panel=DATA,
        help="Refuse files of more pixels undecoded. [default: 178 million]",
    ),
]  # fmt: skip

Timeout = Annotated[
    float | None,
    typer.Option(
        min=0.1, metavar="SECONDS", rich_help_panel=DATA,
        help="Give a file up that is not read by then, as on a share that hangs. [default: 60]",
    ),
]  # fmt: skip

Engine = Annotated[
    Literal["auto", "torch", "onnx"],  # engine.ENGINES
    typer.Option(
        rich_help_panel=MACHINE,
        help="What runs the network; onnx is onnxruntime (the extra `onnx`), in fp32 on a CPU, "
        "which auto takes where it is faster and pays: for a ResNet50 or deeper and 20 "
        "photographs, or 200 where its file must first be made; a folder or stdin counts as many.",
    ),
]  # fmt: skip

Pair = Annotated[
    bool,
    typer.Option(
        "--pair", rich_help_panel=DATA,
        help="Columns patient and eye, and at the end a row a patient: the worst eye.",
    ),
]  # fmt: skip
Labels = Annotated[
    Path | None,
    typer.Option(
        dir_okay=False, metavar="TABLE", rich_help_panel=DATA,
        help="For --pair: a table of images and patients, where names and DICOM do not tell.",
    ),
]  # fmt: skip


def command(
    names: Inputs = None,
    run: Runs = None,
    form: Format = None,
    nul: Null = False,
    resume: Resume = None,
    explain: Explain = None,
    tta: Tta = False,
    max_pixels: MaxPixels = None,
    timeout: Timeout = None,
    pair: Pair = False,
    labels: Labels = None,
    image_column: options.ImageColumn = None,
    patient_column: options.PatientColumn = None,
    batch_size: options.BatchSize = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    engine: Engine = "auto",
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Grade photographs with a trained run.

    Of each photograph, quality in [0, 1] says how fit it is to be graded; verdict is good from 0.6,
    usable from 0.3, else reject, and reason what speaks most against it. gradable is false for
    reject: it is graded all the same, on a terminal in brackets behind "ungradable". predicted is
    the run's grade, referable its alarm: whether the probability of grade 2 or more reaches
    referable_threshold. Where the two disagree, note says so; a terminal marks the grade (?).
    novelty above 1 says that the network learned from photographs unlike this one.
    """
    names = _list_inputs(names, nul)
    if resume and form not in (None, "csv"):
        raise UsageError(f"--resume goes on with a table in csv: leave out --format {form}")
    if explain and engine == "onnx":
        raise UsageError("--explain looks into torch's pass: leave out --engine onnx")
    form = form or ("table" if sys.stdout.isatty() else "csv")
    whose = _find_owners(pair, labels, image_column, patient_column, resume)
    begun = Begun.read(resume) if resume else None
    tally, passed = Tally(), Passed()
    ranks = Ranks.of_environment()
    if pair and not ranks.alone:
        raise UsageError(f"--pair is one process's, but torchrun started {ranks.count}")
    with Console(quiet, mute=not ranks.first) as console:
        sources = run or [find_newest_run().folder]
        listed = list_photographs(names, nul, passed)
        photographs = mind_drawn(listed, sources, bool(run), console)
        console.progress(GRADING, 0, None)
        grader = _load(
            sources, device=device, precision=precision, engine="torch" if explain else engine,
            awaited=count(names), observer=console,
        )  # fmt: skip
        records = predict(
            photographs, grader, batch_size=batch_size, workers=workers, tta=tta, explain=explain,
            max_pixels=max_pixels, timeout=timeout, begun=begun, observer=console, pair=whose,
            ranks=ranks,
        )  # fmt: skip
        if not ranks.first:  # what it grades is the first one's to tell
            list(records)
            return
        hidden = begun is not None or not sys.stdout.isatty()
        graders = ", ".join(f"{source}{_doubt(source)}" for source in sources)
        graders += ", with onnxruntime" if grader.engine == "onnx" else ""
        watched = _watch(records, tally, graders, console, hidden)
        try:
            with while_read() as reader:
                begun.append(watched) if begun else print_records(watched, form)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(tally.tell()) from None
        if reader.gone:
            return
        console.close()
        _tell_passed(passed, names, console)
        if doubt := tally.doubt():
            console.warning(doubt)
        if tally.total() > 1:
            console.note(tally.tell())
    if not tally.total() and not (begun and begun.passed):
        raise UsageError(f"no photograph in {', '.join(names)}")
    _judge(tally, passed, begun)


def _list_inputs(names: list[str] | None, nul: bool) -> list[str]:
    """The inputs named; -0 alone means stdin. UsageError where there are none."""
    names = list(names or [])
    if nul and "-" not in names:
        names.append("-")
    if not names:
        raise UsageError("no INPUT: name photographs, folders, or - for paths on stdin")
    return names


def _find_owners(
    pair: bool, labels: Path | None, image: str | None, patient: str | None, resume: Path | None
) -> "Whose | None":
    """What tells whose eye a photograph shows, for --pair. UsageError for what would do nothing."""
    columns = {"image": image, "patient": patient}
    given = [f"--{name}-column" for name, column in columns.items() if column]
    if given and not labels:
        raise UsageError(f"{given[0]} is of the table that --labels names")
    if labels and not pair:
        raise UsageError("--labels tells patients apart for --pair alone: add that")
    if pair and resume:
        raise UsageError(
            "--pair judges a patient when all photographs are known: leave out --resume"
        )
    if not pair:
        return None
    from dr_cli.labels.owners import by_name, read_owners

    if not labels:
        return by_name
    from dr_cli.labels.columns import Columns

    return read_owners(labels, Columns(**columns))


def _watch(
    records: Iterable[Record],
    tally: Tally,
    graders: str,
    console: Console,
    hidden: bool,
) -> Iterator[Record]:
    """The records as they are, counted; before the first, when nothing can be refused any more,
    what grades them is said. hidden: no row shows on the terminal, so that a bar may stand there.
    """
    for record in records:
        if not tally.total():
            console.close()
            console.note(
                f"graded by {graders}; referable from {record['referable_threshold']:.3g} on; "
                "research and teaching, no diagnosis"
            )
        tally.count(record)
        if hidden:
            console.progress(GRADING, tally.total(), None)
        yield record


def _tell_passed(passed: Passed, names: Sequence[str], console: Console) -> None:
    if passed.files:
        console.note(f"passed over in {', '.join(names)}: {passed.tell()}")
    for folder in passed.folders:
        console.warning(f"{folder}: not looked into")


def _judge(tally: Tally, passed: Passed, begun: Begun | None) -> None:
    """Raises DrError where something could not be graded, now or before."""
    if tally.failed:
        raise DrError(f"{tally.failed:,} of {tally.total():,} inputs failed: see their error")
    if passed.folders:
        raise DrError("some folders could not be opened; the rest is graded")
    if begun and begun.failed:
        raise DrError(f"{begun.path}: {begun.failed:,} rows of before have an error")


def _load(sources: Sequence[Path], **how: Any) -> "Grader":
    from dr_cli.network.grader import Grader  # on use: it brings torch

    return Grader.load(sources, **how)


def predict(
    photographs: Iterable[str | Path],
    grader: "Grader",
    *,
    max_pixels: int | None = None,
    timeout: float | None = None,
    tta: bool = False,
    begun: Begun | None = None,
    observer: Observer = NOTHING,
    ranks: Ranks = ALONE,
    **how: Any,
) -> Iterator[Record]:
    """A record a photograph, as they are known.

    max_pixels, timeout: see `decoding.limit_pixels`, `limit_seconds`. begun: its rows' photographs
    are passed over. ranks: the processes that grade them together; the first one has all. how:
    what `Grader.predict` takes besides. Raises UsageError at once where the grader is not that of
    the rows.
    """
    from dr_cli.grades import UNTRIED, Calibration
    from dr_cli.photographs.decoding import limit_pixels, limit_seconds

    if max_pixels is not None:
        limit_pixels(max_pixels)
    if timeout is not None:
        limit_seconds(timeout)
    if begun:
        begun.check(grader.trained_on, grader.threshold)
        if begun.size:
            observer.note(begun.tell())
        photographs = begun.pass_over(photographs)
    if tta and any(member.calibration != Calibration() for member in grader.members):
        observer.warning(UNTRIED)
    if ranks.alone:
        return grader.predict(photographs, tta=tta, **how)
    from dr_cli.network.rounds import in_rounds

    size = how.get("batch_size") or grader.processor.inference_batch
    return in_rounds(partial(grader.predict, tta=tta, **how), photographs, size, ranks)


def mind_drawn(
    photographs: Iterable[str], sources: Sequence[Path], named: bool, observer: Observer
) -> Iterator[str]:
    """The photographs, as they come, for networks that may have seen drawn eyes alone.

    Drawn eyes are let through. At the first photograph a person who named such a network is
    warned; where it was the newest run alone that chose it, UsageError.
    """
    from dr_cli.sample.mark import is_drawn

    learned = {one: read_record(folder).trained_on for one in sources
               for folder in Run(one).networks()}  # fmt: skip
    drawn = ", ".join(str(one) for one, data in learned.items() if data and data.drawn)
    for photograph in photographs:
        if drawn and not is_drawn(photograph):
            said = f"{drawn} has seen drawn eyes alone, never a photograph"
            if not named:
                raise UsageError(
                    f"{said}, and no other run is finished: name one with --run, or dr train on "
                    "graded photographs"
                )
            observer.warning(f"{said}: what it says of photographs is worth nothing")
            drawn = ""  # said once
        yield photograph


def _doubt(source: Path) -> str:
    """What a person should know of a run before its grades are read, in brackets; else ""."""
    try:
        summary = Run(source).summary()
    except UsageError:  # a model.safetensors alone
        return ""
    record = summary[counted_split(summary)]
    said = {k for row in record["confusion"] or [] for k, count in enumerate(row) if count}
    interval = record["qwk"]["ci95"]
    if len(said) == 1:
        return f" (which called every image of its test grade {said.pop()})"
    if interval and interval[0] <= 0:
        return " (which was not told apart from always saying one grade)"
    return ""
