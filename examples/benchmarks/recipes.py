"""Which options teach most: `dr train` with each of many recipes, in stages, judged on validation.

    python examples/benchmarks/recipes.py DATA \\
        --stage size=96,epochs=8 --stage size=128,epochs=20,seeds=3,keep=2 --out recipes.json \\
        --baseline "--illumination kept --augment flip" "" "--loss ce+mse" "--ema 0.99"

A stage trains every recipe that the stage before kept, `--baseline` always, once a seed. All share
one split, by patient and duplicate, so that seeds differ in weights, order and augmentation alone,
and a recipe is set against the baseline seed by seed. The best by mean validation QWK go on. What
was trained stands in --out, and is not trained again: stopped, the search goes on where it was.

Test images choose nothing. --test reads them once, of what the last stage kept; --other DATA2 reads
another data set, whole: another camera.
"""

import argparse
import csv
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dr_cli.labels import reading
from dr_cli.training import audit
from dr_cli.training.config import TrainConfig
from dr_cli.training.plan import assign_splits

FIGURES = ("qwk", "accuracy", "referable.auc")
Found = dict[str, Any]


@dataclass(frozen=True)
class Stage:
    """How each recipe is trained. keep: how many go on to the next."""

    size: int = 128
    epochs: int = 5
    seeds: int = 1
    keep: int = 3

    @classmethod
    def read(cls, text: str) -> "Stage":
        """size=96,epochs=8,seeds=1,keep=3"""
        pairs = (part.split("=") for part in text.split(","))
        return cls(**{name: int(value) for name, value in pairs})


class Search:
    """What was trained so far, kept in a file after each run; its runs stand beside that file."""

    def __init__(self, data: Path, common: list[str], file: Path) -> None:
        self.data, self.common, self.file = data, common, file
        self.table = file.with_suffix(".csv")
        if not self.table.exists():
            split_once(data, self.table)
        self.found: dict[str, Found] = {}
        if file.exists():
            self.found = json.loads(file.read_text("utf-8"))["runs"]

    def ask(self, stage: Stage, recipe: str, seed: int, further: dict[str, Path]) -> Found:
        """The figures of one run, trained now if it was not; further: splits and sets to read."""
        key = f"{recipe or 'defaults'} | {stage.size} px, {stage.epochs} epochs, seed {seed}"
        one, before = self.found.setdefault(key, {}), json.dumps(self.found)
        if "run" not in one:
            one["run"] = self._train(stage, recipe, seed)
        if "val" not in one:
            one |= self._read(one["run"], "val") | self._read_seconds(one["run"])
        for name, data in further.items():
            if name not in one:
                one |= self._read(one["run"], name, data)
        if json.dumps(self.found) != before:
            self._save()
            told = (f"{split} {one[split]['qwk']:.3f}" for split in ("val", *further))
            print(f"{key}: QWK {', '.join(told)}", file=sys.stderr, flush=True)
        return one

    def _train(self, stage: Stage, recipe: str, seed: int) -> str:
        """The run's folder."""
        options = [*self.common, "--size", stage.size, "--epochs", stage.epochs]
        command = ["train", self.table, *options, *shlex.split(recipe), "--seed", seed]
        return _dr([*command, "--quiet"], DR_RUNS=self.file.with_suffix(".runs"))

    def _read(self, run: str, split: str, data: Path | None = None) -> Found:
        """Its figures on a split of its own, or on all of another set."""
        where = ["--split", split] if data is None else [data, "--split", "all"]
        told = json.loads(_dr(["eval", run, *where, "--bootstrap", 0, "--quiet"]))
        figures = {name: _find(told, name) for name in FIGURES}
        return {split: figures | {"decisions": told["decisions"], "n": told["n"]}}

    def _read_seconds(self, run: str) -> Found:
        with (Path(run) / "metrics.csv").open(newline="") as file:
            return {"seconds": round(sum(float(row["seconds"]) for row in csv.DictReader(file)))}

    def _save(self) -> None:
        machine = {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()}
        told = {"data": str(self.data.name), "machine": machine, "common": self.common}
        aside = self.file.with_suffix(".part")
        aside.write_text(json.dumps(told | {"runs": self.found}, indent=1), encoding="utf-8")
        aside.rename(self.file)


def split_once(data: Path, file: Path) -> None:
    """A table of the data set's images with the splits that `dr train --split-by patient` draws."""
    labels = reading.read(data)
    found = assign_splits(TrainConfig(split_by="patient"), labels, audit.inspect(labels))
    rows = found[found["split"].notna()]
    images = [str(labels.root.resolve() / path) for path in rows["path"]]
    rows.assign(image=images)[["image", "grade", "patient", "split"]].to_csv(file, index=False)


def _dr(arguments: list[Any], **environment: Any) -> str:
    command = [sys.executable, "-m", "dr_cli", *map(str, arguments)]
    env = os.environ | {name: str(value) for name, value in environment.items()}
    return subprocess.run(
        command, env=env, stdout=subprocess.PIPE, text=True, check=True
    ).stdout.strip()


def _find(record: Found, name: str) -> float | None:
    for part in name.split("."):
        record = record[part]
    return record["value"]


def tabulate(
    search: Search, stage: Stage, recipes: list[str], baseline: str, splits: list[str]
) -> Iterator[str]:
    """A Markdown row a recipe: mean and deviation over seeds, and of QWK the mean difference from
    the baseline's of the same seed."""
    heads = [f"{split} {figure}" for split in splits for figure in FIGURES]
    yield f"| recipe | {' | '.join(heads)} | val QWK less baseline | seconds |"
    yield "|---" * (len(heads) + 3) + "|"
    for recipe in recipes:
        ours, theirs = (
            [search.ask(stage, one, seed, {}) for seed in range(stage.seeds)]
            for one in (recipe, baseline)
        )
        cells = [_spread([one[s][f] for one in ours]) for s in splits for f in FIGURES]
        less = _spread(
            [a["val"]["qwk"] - b["val"]["qwk"] for a, b in zip(ours, theirs, strict=True)]
        )
        seconds = round(statistics.mean(one["seconds"] for one in ours))
        yield f"| `{recipe or 'defaults'}` | {' | '.join(cells)} | {less} | {seconds} |"


def _spread(values: list[float]) -> str:
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("recipes", nargs="+", help='options of dr train, such as "--loss mse"')
    parser.add_argument("--baseline", default="", help="the recipe that all are set against")
    parser.add_argument("--stage", type=Stage.read, action="append", help=Stage.read.__doc__)
    parser.add_argument("--test", action="store_true", help="read the test split at the end")
    parser.add_argument("--other", type=Path, help="another data set, read at the end")
    parser.add_argument("--out", type=Path, default=Path("recipes.json"))
    options, common = parser.parse_known_args()
    search = Search(options.data.resolve(), common, options.out.resolve())
    stages, recipes = options.stage or [Stage()], options.recipes
    for number, stage in enumerate(stages, start=1):
        told = list(dict.fromkeys([options.baseline, *recipes]))
        for seed in range(stage.seeds):  # seeds outside, so that all recipes share bad moments
            for recipe in told:
                search.ask(stage, recipe, seed, {})

        def merit(recipe: str, stage: Stage = stage) -> float:
            each = [search.ask(stage, recipe, seed, {}) for seed in range(stage.seeds)]
            return statistics.mean(one["val"]["qwk"] for one in each)

        recipes = sorted(recipes, key=merit, reverse=True)[: stage.keep]
        splits = ["val"]
        if number == len(stages):
            further = ({"test": None} if options.test else {}) | (
                {options.other.name: options.other} if options.other else {}
            )
            told = list(dict.fromkeys([options.baseline, *recipes]))
            for recipe in told:
                for seed in range(stage.seeds):
                    search.ask(stage, recipe, seed, further)
            splits += further
        print(
            f"\n{stage}\n", *tabulate(search, stage, told, options.baseline, splits), "", sep="\n"
        )


if __name__ == "__main__":
    main()
