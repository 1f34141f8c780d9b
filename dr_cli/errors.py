"""The errors we expect, each with its exit code. `cli` turns one into a line on stderr.

A message says what is wrong, where (file, row, column) and what to do next.
"""


class DrError(Exception):
    """A failure at run time: exit code 1."""

    exit_code = 1


class UsageError(DrError):
    """What was asked for cannot be: a wrong value, a missing folder, an unusable table."""

    exit_code = 2


class WriteError(DrError):
    """A file cannot be written; what stood there before still does."""


class DivergedError(DrError):
    """A loss or a weight is no number any more; nothing of that is saved."""


class PartedError(DrError):
    """Another process of the same training is gone, or says nothing for too long."""


class UnmetError(DrError):
    """A figure fell short of `--fail-under`."""

    exit_code = 3
