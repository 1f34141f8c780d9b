"""How drawn eyes are told from photographs: by a text that stands in their folder.

Free of everything else, because each photograph that `dr predict` grades is asked for it.
"""

import functools
from pathlib import Path

README = """\
These pictures are DRAWN by a computer program (dr, dr_cli/sample/). They are not photographs,
show no person's eye, and must never be used for a clinical purpose: not to grade, not to
validate a grader, not to set a threshold. What a network learns here says nothing about what it
does on real eyes. They exist so that the program can be tried with nothing downloaded.

labels.csv: image (under images/), grade 0 to 4, patient, eye, split.
"""
_BEGINS = b"These pictures are DRAWN"


def is_drawn(path: Path | str) -> bool:
    """Whether a picture, or a folder or table of pictures, is of the sample set."""
    whole = Path(path).absolute()
    return any(_is_marked(folder) for folder in (whole, *whole.parents[:2]))


@functools.lru_cache(maxsize=1024)
def _is_marked(folder: Path) -> bool:
    try:
        with open(folder / "README.txt", "rb") as file:
            return file.read(len(_BEGINS)) == _BEGINS
    except (OSError, ValueError):  # a NUL in a name
        return False
