"""What was passed over in folders, so that `dr predict` and `dr train` can say it alike."""

from collections import Counter
from dataclasses import dataclass, field


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
        return ", ".join(told) + "; DICOM: export it as PNG or JPEG first" * (".dcm" in self.files)
