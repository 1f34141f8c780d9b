"""The program as a person types it, in this process."""

from typing import Any

from typer.testing import CliRunner

from dr_cli.cli import app


def dr(*arguments: Any, **options: Any) -> Any:
    """What `dr arguments…` said; options: of `CliRunner.invoke`, such as `input` and `env`."""
    return CliRunner().invoke(app, [str(a) for a in arguments], **options)
