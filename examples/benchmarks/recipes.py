"""Which options teach most: `dr train` with each of several, over seeds, judged on validation.

    python examples/benchmarks/recipes.py DATA --size 96 --epochs 5 --seeds 2 \\
        "--optimizer sgd" "--optimizer adamw"

Prints mean and standard deviation over seeds of the kept epoch's validation QWK and accuracy, a
line a recipe, and writes recipes.json. Test images are never looked at: a default that was
chosen on them would be worth nothing. All seeds of a recipe see splits of their own.
"""

import argparse
import csv
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def trained(
    data: Path, common: list[str], recipe: str, seed: int, folder: Path
) -> dict[str, float]:
    """The kept epoch's validation figures of one run."""
    command = [sys.executable, "-m", "dr_cli", "train", str(data), *common, *shlex.split(recipe)]
    done = subprocess.run(
        [*command, "--seed", str(seed), "--quiet"],
        env={**os.environ, "DR_RUNS": str(folder)}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    with (Path(done.stdout.strip()) / "metrics.csv").open(newline="") as file:
        best = max(csv.DictReader(file), key=lambda row: float(row["val_qwk"] or -1))
    return {name: float(best[f"val_{name}"] or "nan") for name in ("qwk", "accuracy")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("recipes", nargs="+", help='options of dr train, such as "--loss mse"')
    parser.add_argument("--size", default="128")
    parser.add_argument("--epochs", default="5")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("recipes.json"))
    options, more = parser.parse_known_args()
    common = ["--size", options.size, "--epochs", options.epochs, *more]
    record = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        for seed in range(options.seeds):  # seeds outside, so that all recipes share bad moments
            for recipe in options.recipes:
                found = trained(options.data, common, recipe, seed, Path(name))
                record.setdefault(recipe, []).append(found)
                print(f"seed {seed}  {recipe:40} {found}", flush=True)
    for recipe, found in record.items():
        shown = "  ".join(
            f"val {key} {statistics.mean(values):.3f} ± "
            f"{statistics.stdev(values) if len(values) > 1 else float('nan'):.3f}"
            for key in ("qwk", "accuracy")
            for values in [[one[key] for one in found]]
        )
        print(f"{recipe:40} {shown}")
    options.out.write_text(json.dumps(record, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
