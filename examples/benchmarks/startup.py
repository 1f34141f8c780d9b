"""How long `dr` takes to say something: `dr --help` against an empty Typer program, in turn.

    python examples/benchmarks/startup.py
    python examples/benchmarks/startup.py --predict RUN PHOTOGRAPH

Wall clock of whole processes, ratios of medians; also Python alone, and `dr predict --help`.
--predict: in their place one photograph graded from a cold start, against importing torch, loading
the network and running it; and by processor time, which a busy machine leaves alone.
"""

import argparse
import os
import subprocess
import sys

from compete import compete, show

EMPTY = """
import typer
app = typer.Typer()
@app.command()
def one() -> None: "Nothing."
@app.command()
def two() -> None: "Nothing."
app()
"""
NETWORK = """
import sys, torch
from safetensors.torch import load_file
from dr_cli.network.resnet import build_resnet
network = build_resnet(sys.argv[2]).eval()
network.load_state_dict(load_file(sys.argv[1]))
with torch.inference_mode(): network(torch.zeros(1, 3, int(sys.argv[3]), int(sys.argv[3])))
"""


def process(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def of_children() -> float:
    """Processor time of the processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def predict(run: str, photograph: str, repeats: int) -> None:
    from dr_cli.runs import Run, read_record

    record = read_record(Run(run).folder)
    file = os.path.join(run, "model.safetensors")
    size = str(record.preprocessing["size"])
    grade = ("-m", "dr_cli", "predict", photograph, "--run", run, "--quiet")
    contestants = {
        "dr predict, one photograph": lambda: process(*grade),
        "torch, the network, a pass": lambda: process("-c", NETWORK, file, record.arch, size),
        "import torch": lambda: process("-c", "import torch"),
    }
    show("cold start", compete(contestants, 1, repeats), "a second")
    show("by processor time", compete(contestants, 1, repeats, of_children), "a second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--predict", nargs=2, metavar=("RUN", "PHOTOGRAPH"))
    options = parser.parse_args()
    if options.predict:
        predict(*options.predict, options.repeats)
        return
    table = compete(
        {
            "dr --help": lambda: process("-m", "dr_cli", "--help"),
            "dr predict --help": lambda: process("-m", "dr_cli", "predict", "--help"),
            "an empty Typer program's --help": lambda: process("-c", EMPTY, "--help"),
            "python -c ''": lambda: process("-c", ""),
        },
        1,
        options.repeats,
    )
    show("start-up", table, "a second")


if __name__ == "__main__":
    main()
