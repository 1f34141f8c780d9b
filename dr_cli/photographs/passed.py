"""What is passed over in folders, by one rule, so that `dr predict` and `dr train` say it alike."""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Passed:
    """Files and folders that gave no photograph."""

    files: Counter[str] = field(default_factory=Counter)
    """Files that are not named as photographs, by their extension; "" for none."""
    folders: list[str] = field(default_factory=list)
    """Folders that could not be opened, each with the reason."""

    def tell(self) -> str:
        """ "3 .dcm, 2 without an extension"; the most frequent first, "" where there was none."""
        kinds = self.files.most_common()
        told = [f"{n:,} {kind or 'without an extension'}" for kind, n in kinds[:6]]
        if rest := sum(n for _, n in kinds[6:]):
            told.append(f"{rest:,} others")
        return ", ".join(told)


class Entered:
    """The folders that a walk has been in: links are followed, but a folder that they lead back to
    is entered once."""

    def __init__(self, top: str | os.PathLike[str]) -> None:
        self.known = {Path(top).resolve()}

    def is_new(self, folder: str) -> bool:
        """Whether to go in; remembers it."""
        if not os.path.islink(folder):
            return True
        target, above = Path(folder).resolve(), Path(folder).parent.resolve()
        if target in self.known:
            return False
        known = any(target.is_relative_to(one) for one in self.known)
        self.known.add(target)
        return not (known and above.is_relative_to(target))  # else the walk is in there


def is_hidden(name: str) -> bool:
    """A file or folder that no person put there: hidden ones, and macOS's `__MACOSX`."""
    return name.startswith((".", "__MACOSX"))
