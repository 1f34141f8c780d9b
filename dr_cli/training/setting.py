"""Where and how a run is trained, and the frame round it: new, or gone on with."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pandas as pd

from dr_cli.device import choose
from dr_cli.errors import DivergedError, DrError, PartedError, WriteError
from dr_cli.events import NOTHING, Observer
from dr_cli.labels import reading
from dr_cli.labels.columns import Columns
from dr_cli.labels.reading import Labels
from dr_cli.photographs import cache
from dr_cli.photographs.crop import Preprocessing
from dr_cli.ranks import ALONE, TIMEOUT, Ranks
from dr_cli.runs import LAUNCH, Run, counted_split
from dr_cli.sample import drawn_set
from dr_cli.training import crossval, saved, teacher, trainer
from dr_cli.training.config import TrainConfig
from dr_cli.training.plan import Plan, make_plans


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where and how to train: what does not decide the result but for its last bits."""

    layout: str = "auto"
    """How the data set is laid out, a name of `dr_cli.labels.layouts`; "auto" recognises it."""
    columns: Columns = dataclasses.field(default_factory=Columns)
    """The table's columns, where they are not recognised."""
    device: str = "auto"
    """Where the network runs: "auto", "cpu", "cuda", "mps"."""
    precision: str = "auto"
    """In which numbers: "auto", "fp32", "bf16", "fp16"."""
    workers: int | None = None
    """Photographs decoded at once; None is every core."""
    profile: bool = False
    """Whether the observer is told at the end where the time went."""
    timeout: float = TIMEOUT
    """Seconds for which one of several processes waits for the others within a step."""

    @contextmanager
    def together(self, observer: Observer) -> Iterator[tuple[Ranks, Observer]]:
        """This process's place among those that torchrun started, for a block in which they hear
        each other; and who is told, which is the first one's observer alone."""
        ranks = Ranks.of_environment()
        with ranks.joined(choose(self.device, self.precision).device, self.timeout):
            if not ranks.alone:
                observer = observer if ranks.first else NOTHING
                observer.note(f"{ranks.count} processes, {ranks.beside} on this machine")
            yield ranks, observer

    def read(self, data: Path | str | None, observer: Observer) -> Labels:
        """The labels of a data set, of the default one where None is given."""
        root = find_data(self.workers, observer) if data is None else data
        return reading.read(root, layout=self.layout, columns=self.columns, observer=observer)

    def plan(
        self,
        config: TrainConfig,
        labels: Labels,
        observer: Observer,
        *,
        ranks: Ranks = ALONE,
        cache: bool = True,
        begun: pd.DataFrame | None = None,
        way: Preprocessing | None = None,
        start: bool = True,
    ) -> list[Plan]:
        """See `make_plans`; device and precision are what they come to on this machine. start:
        whether a drawn start is made, too, where --start drawn asks for one.

        Several processes train one network together; of folds and seeds each its own alone.
        """
        found, workers = choose(self.device, self.precision), self.workers

        def make() -> list[Plan]:
            plans = make_plans(
                config, labels, found, workers=workers, cache=cache, begun=begun, way=way,
                observer=observer,
            )  # fmt: skip
            return [self._take_start(plan, observer) for plan in plans] if start else plans

        plans = ranks.in_turn(make)
        ranks.agree(plans[0].table[["path", "grade", "split"]])
        for reasons in ranks.gather(plans[0].dataset.reasons):
            plans[0].dataset.hear_failed(reasons)
        return plans if plans[0].member else [plans[0].among(ranks)]

    def _take_start(self, plan: Plan, observer: Observer) -> Plan:
        """The plan with its drawn start; made on the first use of an architecture and a way of the
        pixels."""
        if plan.config.start != "drawn":
            return plan
        way, arch = plan.dataset.preprocessing, plan.config.arch
        made = teacher.ensure(
            arch, way, plan.processor, teacher.RECIPE, workers=self.workers, observer=observer
        )
        return dataclasses.replace(plan, drawn_start=made)


def find_data(workers: int | None, observer: Observer) -> Path:
    """`$DR_DATA`, else the built-in sample set; says which."""
    if given := os.environ.get("DR_DATA"):
        observer.note(f"DATA: $DR_DATA, {given}")
        return Path(given)  # which may be the name of a drawn set, too
    observer.note(
        "DATA: the built-in sample set: drawn eyes, no photographs, never for clinical use"
    )
    return drawn_set.ensure(cache.folder(), observer=observer, workers=workers)


@contextmanager
def at_work(run: Run, ranks: Ranks = ALONE) -> Iterator[None]:
    """See `Run.hold`; where the disk is full, what was saved is there to go on with. Of several
    processes the first one holds it, and whichever fails tells the way on."""
    try:
        with run.hold() if ranks.first else nullcontext():
            yield
    except (DrError, OSError) as error:
        if not run["config.json"].is_file():
            raise DrError(f"{run.folder} was removed or moved while it was trained") from error
        if isinstance(error, WriteError):
            raise DrError(f"{error}; once it can be, {run.tell_way_on()}") from error
        if isinstance(error, DivergedError):
            raise DrError(f"{error}{_tell_slower_way(run)}") from error
        raise
    except RuntimeError as error:
        if isinstance(known := ranks.explain(error), PartedError):
            raise PartedError(f"{known}; {run.tell_way_on()}") from error
        raise


def _tell_slower_way(run: Run) -> str:
    """How a run that diverged is gone on with; one made of runs cannot change its rate."""
    config = TrainConfig.from_dict(dict(run.config().options), str(run["config.json"]))
    several = config.folds or config.seeds
    return "" if several else f"; {run.tell_way_on()} --lr {config.learning_rate / 3:.1g}"


def fill_members(
    run: Run, plans: Sequence[Plan], setting: Setting, ranks: Ranks, observer: Observer
) -> None:
    """Trains the folds or seeds that are not finished, then reads them as one run. Several
    processes train them side by side, each alone."""
    members = [Run(run.folder / str(plan.member)) for plan in plans]
    left = [one for one in enumerate(zip(plans, members, strict=True), 1) if not one[1][1].finished]
    ranks.wait()  # all see what is left before one begins
    if not ranks.alone:
        observer.note(f"{len(left)} to train, side by side: those of the first process are shown")
    for place, (plan, member) in ranks.every(left):
        kind = "fold" if plan.fold else "seed"
        which = "" if plan.fold else f": {plan.config.seed}"
        observer.note(f"{kind} {place} of {len(plans)}{which}")
        state = saved.read_state(member)
        member.folder.mkdir(exist_ok=True)
        member.write_config(trainer.describe_run(plan))
        trainer.fill_run(plan, member, state=state, profile=setting.profile, observer=observer)
    ranks.wait()
    if not ranks.first:
        return
    observer.progress(trainer.FINDING, 0, None)
    if plans[0].fold:
        crossval.pool(run, members)
    else:
        crossval.average(run, members)


def close(run: Run, ranks: Ranks, observer: Observer) -> None:
    """A finished run; tells what spoils the figures of the split that counts."""
    if not ranks.first:  # which are not there yet
        return
    run[LAUNCH].unlink(missing_ok=True)  # another launch of the same name begins another run
    summary = run.summary()
    for text in summary[counted_split(summary)]["warnings"]:
        observer.warning(text)
