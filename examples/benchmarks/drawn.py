"""Drawn eyes as a teacher, measured on real photographs: what `--start drawn` is worth.

    python examples/benchmarks/drawn.py --aptos ../shared/data/aptos --idrid ../shared/data/idrid

Three parts, each cut into steps whose results are appended to --out as they come; called again it
goes on with what is not there yet. --only names parts.

zero   A ResNet that has seen drawn eyes alone, on photographs: area under the ROC curve of
       referable retinopathy. For choosing a recipe: half of APTOS (by duplicate group) and
       IDRiD's training set. --final reads the other half and IDRiD's test set, to be done once.
head   APTOS, a fifth held out by duplicate group; so many of the others to learn from, from scratch
       and with --start drawn.
carry  Trained on one set, tested on the whole other one, both ways, from scratch and drawn.

Photographs whose duplicates have another grade are left out everywhere.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dr_cli import device
from dr_cli.grades import REFERABLE_FROM, expected_grade
from dr_cli.labels import reading
from dr_cli.network.grader import Grader
from dr_cli.photographs.crop import Preprocessing
from dr_cli.scoring import metrics
from dr_cli.scoring.of_run import evaluate
from dr_cli.training import audit, session, teacher
from dr_cli.training.config import TrainConfig

HALF, FIFTH = 15, 16  # seeds of the parts of APTOS
REPLICATES = 1000
PARTS = ("zero", "head", "carry")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--aptos", type=Path, required=True)
    parser.add_argument("--idrid", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("drawn.json"))
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--sizes", nargs="*", type=int, default=[96, 128])
    parser.add_argument("--eyes", nargs="*", type=int, default=[3000, teacher.RECIPE.eyes])
    parser.add_argument("--maps", nargs="*", type=float, default=[teacher.RECIPE.maps, 0.0])
    parser.add_argument("--photographs", nargs="*", type=int, default=[100, 300, 1000, 0])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--final", action="store_true", help="Read the parts kept for the end.")
    options = parser.parse_args()
    record = json.loads(options.out.read_text()) if options.out.is_file() else {}
    sets = {name: read(getattr(options, name)) for name in ("aptos", "idrid")}
    steps: dict[str, Callable[..., Iterator[tuple[str, Callable[[], Any]]]]] = {
        "zero": zero_shot, "head": head_start, "carry": carry_over,
    }  # fmt: skip
    for part in options.only:
        for name, work in steps[part](sets, options):
            if name not in record:
                began = time.time()
                record[name] = work() | {"wall_seconds": round(time.time() - began, 1)}
                options.out.write_text(json.dumps(record, indent=1) + "\n")
            print(name, json.dumps(record[name]), flush=True)


def read(folder: Path) -> pd.DataFrame:
    """Every photograph without a duplicate of another grade: path, grade, group, split."""
    labels = reading.read(folder)
    group = audit.inspect(labels).near
    table = labels.table.assign(group=group)
    table["path"] = [str((labels.root / path).resolve()) for path in table["path"]]
    alike = table.groupby("group")["grade"].transform("nunique") == 1
    return table[alike & table["reason"].isna()].reset_index(drop=True)


def take(table: pd.DataFrame, share: float, seed: int) -> np.ndarray:
    """bool [N]: that share of the duplicate groups."""
    groups = np.random.default_rng(seed).permutation(table["group"].unique())
    return table["group"].isin(groups[: round(share * len(groups))]).to_numpy()


def zero_shot(
    sets: dict[str, pd.DataFrame], options: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], Any]]]:
    half, train = take(sets["aptos"], 0.5, HALF), sets["idrid"]["split"] == "train"
    final = options.final
    judged = {"aptos": sets["aptos"][half ^ final], "idrid": sets["idrid"][train ^ final]}
    for size in options.sizes:
        for eyes in options.eyes:
            for maps in options.maps:
                recipe = replace(teacher.RECIPE, eyes=eyes, maps=maps)
                name = f"zero-{options.arch}-{size}-{eyes}-maps{maps:g}-v{recipe.drawing}"

                def work(size: int = size, recipe: teacher.Recipe = recipe) -> dict[str, Any]:
                    return judge_start(options.arch, size, recipe, judged)

                yield name + "-final" * final, work


def judge_start(
    arch: str, size: int, recipe: teacher.Recipe, judged: dict[str, pd.DataFrame]
) -> dict[str, Any]:
    way = Preprocessing(size=size, illumination=TrainConfig().illumination)
    start = teacher.ensure(arch, way, device.choose(), recipe)
    grader = Grader.load(start.weights)
    result = {"seconds": start.record["seconds"], "drawn": start.record["figures"]}
    for name, table in judged.items():
        answers = list(grader.predict(table["path"]))
        probabilities = np.array([answer["probabilities"] for answer in answers])
        result[name] = score(table, expected_grade(probabilities))
    return result


def score(table: pd.DataFrame, merit: np.ndarray) -> dict[str, Any]:
    """Referable AUC with a 95% interval over duplicate groups."""
    truth = table["grade"].to_numpy() >= REFERABLE_FROM
    number = np.unique(table["group"], return_inverse=True)[1]
    rows = np.split(np.argsort(number, kind="stable"), np.cumsum(np.bincount(number))[:-1])
    rng, found = np.random.default_rng(0), []
    for _ in range(REPLICATES):
        drawn = np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))])
        found.append(metrics.auc(truth[drawn], merit[drawn]))
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return {"n": len(table), "auc": round(metrics.auc(truth, merit), 4),
            "ci95": [round(float(low), 4), round(float(high), 4)]}  # fmt: skip


def head_start(
    sets: dict[str, pd.DataFrame], options: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], Any]]]:
    table = sets["aptos"]
    held = take(table, 0.2, FIFTH)
    for count in options.photographs:
        for seed in options.seeds:
            for start in ("scratch", "drawn"):
                name = f"head-{options.arch}-{options.sizes[0]}-{count or 'all'}-{start}-{seed}"

                def work(count: int = count, seed: int = seed, start: str = start) -> Any:
                    rng = np.random.default_rng(seed)
                    rows = rng.permutation(np.flatnonzero(~held))[: count or None]
                    chosen = table.assign(split="test").iloc[np.flatnonzero(held)]
                    data = pd.concat([chosen, table.assign(split="train").iloc[rows]])
                    return train(data, start, seed, options)[0]

                yield f"{name}-{options.epochs}", work


def carry_over(
    sets: dict[str, pd.DataFrame], options: argparse.Namespace
) -> Iterator[tuple[str, Callable[[], Any]]]:
    for home, away in (("aptos", "idrid"), ("idrid", "aptos")):
        for seed in options.seeds:
            for start in ("scratch", "drawn"):
                name = f"carry-{options.arch}-{options.sizes[0]}-{home}-{away}-{start}-{seed}"

                def work(
                    home: str = home, away: str = away, seed: int = seed, start: str = start
                ) -> Any:
                    held = take(sets[home], 0.2, FIFTH)
                    data = sets[home].assign(split=np.where(held, "test", "train"))
                    return train(data, start, seed, options, sets[away])[1]

                yield f"{name}-{options.epochs}", work


def train(
    data: pd.DataFrame,
    start: str,
    seed: int,
    options: argparse.Namespace,
    away: pd.DataFrame | None = None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Figures of a run on its own test photographs, and on those of another camera."""
    config = TrainConfig(
        arch=options.arch, size=options.sizes[0], epochs=options.epochs, seed=seed,
        start=start,  # type: ignore[arg-type]
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = session.train(write(data, Path(folder, "home")), config, runs=Path(folder, "runs"))
        own = tell(run.summary()["test"])
        if away is None:
            return own, {}
        there = write(away.assign(split="test"), Path(folder, "away"))
        return own, tell(evaluate(run, there)) | {"at_home": own, "config": asdict(config)}


def write(table: pd.DataFrame, folder: Path) -> Path:
    """A data set of a table: photographs stay where they are; doubles count as one patient."""
    folder.mkdir()
    columns = {"path": "image", "grade": "grade", "group": "patient", "split": "split"}
    table.rename(columns=columns)[list(columns.values())].to_csv(folder / "labels.csv", index=False)
    return folder / "labels.csv"


def tell(record: Any) -> dict[str, Any]:
    return {"n": record["n"], "qwk": record["qwk"], "accuracy": record["accuracy"]["value"],
            "auc": record["referable"]["auc"]}  # fmt: skip


if __name__ == "__main__":
    main()
