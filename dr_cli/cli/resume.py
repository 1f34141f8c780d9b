"""`dr predict --resume FILE`: rows that are there stay, what they name is passed over, new ones
come behind them."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from dr_cli.cli.rows import Record, csv_line, to_row
from dr_cli.errors import UsageError
from dr_cli.formulas import defuse_path, plain

_NEEDED = ("path", "error", "trained_on", "referable_threshold")  # what is looked at in a row


@dataclass
class Begun:
    """A table of `dr predict` that is gone on with; of a file that is not there, an empty one."""

    path: Path
    columns: list[str]
    """Of the table, some or all of today's."""
    end: int = 0
    """Bytes of the header and the whole rows."""
    size: int = 0
    """Bytes of all; more than `end` where a row is half-written."""
    rows: Counter[str] = field(default_factory=Counter)
    """How many there are of each photograph, by its path as it is written, that was not yet passed
    over."""
    failed: int = 0
    """Of the rows those with an error."""
    graders: set[tuple[str, ...]] = field(default_factory=set)
    """What the rows say of what graded them: `trained_on` and `referable_threshold`."""
    passed: int = 0
    without: list[str] = field(default_factory=list)
    """Columns of today that the table does not have."""

    @classmethod
    def read(cls, path: Path) -> "Begun":
        """Changes nothing. Raises UsageError for what is no table of this program's predictions."""
        from dr_cli.network.telling import FIELDS

        begun = cls(path, list(to_row(dict.fromkeys(FIELDS))))
        if path.exists():
            if not path.is_file():  # a device has no end
                raise UsageError(f"{path} is no file that could be gone on with")
            with path.open("rb") as file:
                begun._measure(file)
            with path.open("rb") as file:
                try:
                    begun._collect(file)
                except csv.Error as error:
                    raise UsageError(
                        f"{path}: no table that can be read ({error}): mend it, or name another"
                    ) from error
        return begun

    def _measure(self, lines: Iterable[bytes]) -> None:
        """Where the last whole row ends: at a line's end that no quotes enclose."""
        quoted = False
        for line in lines:
            self.size += len(line)
            quoted ^= line.count(b'"') % 2 == 1
            if line.endswith(b"\n") and not quoted:
                self.end = self.size

    def _collect(self, lines: Iterable[bytes]) -> None:
        header = csv_line(self.columns)
        if not self.end:  # at most a part of a header
            lines = iter(lines)
            if not header.startswith(os.fsdecode(next(iter(lines), b""))):
                raise UsageError(self._refuse())
            return
        reader = csv.reader(map(os.fsdecode, _first(lines, self.end)))
        self._keep_columns(next(reader, []))
        for cells in reader:
            if len(cells) != len(self.columns):
                raise UsageError(
                    f"{self.path}, line {reader.line_num}: {len(cells)} columns, where the header "
                    f"has {len(self.columns)}: mend or remove that line"
                )
            row = dict(zip(self.columns, cells, strict=True))
            self.rows[defuse_path(row["path"])] += 1
            self.failed += bool(row["error"])
            self.graders.add((plain(row["trained_on"]), row["referable_threshold"]))

    def _keep_columns(self, found: list[str]) -> None:
        """The table's own columns, which may be fewer, as those of an earlier version are."""
        if missing := [name for name in _NEEDED if name not in found]:
            raise UsageError(f"{self._refuse()}; it has no column {', '.join(missing)}")
        if other := [name for name in found if name not in self.columns]:
            raise UsageError(f"{self._refuse()}; remove its column {', '.join(other)}")
        if len(set(found)) < len(found):
            raise UsageError(f"{self._refuse()}; one of its columns stands there twice")
        self.without = [name for name in self.columns if name not in found]
        self.columns = found

    def _refuse(self) -> str:
        return (
            f"{self.path}: its header is not that of dr predict --format csv "
            f"({', '.join(self.columns[:3])}, …): name another file"
        )

    def check(self, trained_on: str | None, threshold: float) -> None:
        """UsageError where another run graded the rows."""
        now = (trained_on or "", str(threshold))
        if others := sorted(self.graders - {now}):
            learned, point = others[0]
            raise UsageError(
                f"{self.path}: another run graded its rows (trained on {learned or 'unknown'}, "
                f"threshold {point}; now {now[0] or 'unknown'}, {now[1]}): name that run with "
                "--run, or another file"
            )

    def tell(self) -> str:
        """What is there, before anything is added."""
        failed = f", {self.failed:,} with an error" * bool(self.failed)
        cut = "; its last line is half-written and cut off" * (self.size > self.end)
        old = f"; as there, without {', '.join(self.without)}" * bool(self.without)
        return f"{self.path}: {self.rows.total():,} rows are there{failed}{cut}{old}"

    def pass_over(self, photographs: Iterable[str | Path]) -> Iterator[str | Path]:
        """Those that have no row yet; one given twice wants two."""
        for photograph in photographs:
            name = defuse_path(str(photograph))
            if self.rows[name]:
                self.rows[name] -= 1
                self.passed += 1
            else:
                yield photograph

    def append(self, records: Iterable[Record]) -> None:
        """A row each behind those that are there, written whole before the next is asked for."""
        records = iter(records)
        for first in records:  # before there is something to add, nothing is touched
            with self.path.open("ab") as file:
                file.truncate(self.end)
                if not self.end:
                    file.write(os.fsencode(csv_line(self.columns)))
                for record in chain([first], records):
                    row = to_row(record)
                    file.write(os.fsencode(csv_line(row[name] for name in self.columns)))
                    file.flush()


def _first(lines: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The lines within so many bytes."""
    for line in lines:
        size -= len(line)
        if size < 0:
            return
        yield line
