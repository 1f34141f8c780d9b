"""A command's help: options by subject, as wide as the terminal, examples at the end."""

import os
import re
import sys
from typing import Any

import typer
from typer.core import TyperCommand

# Rich's panels spend three columns on flags and types: at 80 characters 30 are left for the
# meaning, and `dr --help` takes 1.7 times as long. So Click's own plain form, by subject.
WIDTH = {"max_content_width": 110}  # of Click's context; a narrower terminal's own width counts
COLUMN = 28  # of the meanings; Click moves a meaning that finds no room to the next line

ARGUMENTS, DATA, NETWORK, OPTIMISATION = "Arguments", "Data", "Network", "Optimisation"
AUGMENTATION, EVALUATION, RUNS = "Augmentation", "Evaluation", "The run"
OUTPUT, MACHINE = "Output", "Machine"
SUBJECTS = (
    ARGUMENTS, DATA, NETWORK, OPTIMISATION, AUGMENTATION, EVALUATION, RUNS, OUTPUT, MACHINE,
)  # fmt: skip


class Command(TyperCommand):
    """A command whose options name their subject in `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Each subject's options; the meanings of all of them begin in one column."""
        sections: dict[str, list[tuple[str, str]]] = {subject: [] for subject in SUBJECTS}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                name, meaning = record
                subject = getattr(parameter, "rich_help_panel", None) or OUTPUT
                if parameter.param_type_name == "argument":
                    subject, name = ARGUMENTS, parameter.metavar or name
                sections[subject].append((_paint_flags(name), meaning.replace("  [", " [")))
        for subject, rows in sections.items():
            if rows:
                with formatter.section(_paint(subject, bold=True)):
                    formatter.write_dl(rows, col_max=COLUMN)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples, a line each as they stand, nothing wrapped."""
        with formatter.section(_paint("Examples", bold=True)):
            formatter.write("".join(f"  {line}\n" for line in (self.epilog or "").splitlines()))


def _paint_flags(name: str) -> str:
    """Flags in colour, filled up to the column here, as Click does not see across subjects."""
    painted = re.sub(r"(?<![\w-])--?[a-z0-9][a-z-]*", lambda flag: _paint(flag[0], fg="cyan"), name)
    return painted + " " * (COLUMN - len(name))


def _paint(text: str, **how: Any) -> str:
    """In colour on a terminal that is to have some."""
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return typer.style(text, **how) if coloured else text
