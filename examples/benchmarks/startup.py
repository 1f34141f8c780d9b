"""How long `dr` takes to say something: `dr --help` against an empty Typer program, in turn.

    python examples/benchmarks/startup.py

Wall clock of whole processes, ratios of medians; also Python alone, and `dr predict --help`.
"""

import argparse
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


def process(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
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
