"""What a cell or a folder's name means on the scale of grades: by itself, or by `--grade-map`.

A scale that only looks like 0-4 is the worst of errors, because nothing fails: every eye is one
grade off. So doubtful values are refused here, with a map that can be pasted.
"""

import csv
import io
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dr_cli.errors import UsageError
from dr_cli.grades import NUM_GRADES
from dr_cli.labels.layouts import parse_grade, parse_number

_GRADES = {str(grade): grade for grade in range(NUM_GRADES)}
_LEFT_OUT = ("", "-")
_NUMBERING = re.compile(r"^\W*\d+(\.\d+)*\W+")  # "2. Mild", "10 - …", "0.3.DR1"
_NICETIES = re.compile(r"\b(very|or|early|advanced|stage|eye|eyes|fundus)\b", re.IGNORECASE)
ENGLISH = 'R0 to R3 without R4 may be the English scale, whose R3 is proliferative: say what they \
mean, such as --grade-map "R0=0,R1=1,R2=3,R3=4"'


@dataclass(frozen=True)
class Scale:
    """What values mean. meant: value (as `_fold` spells it) -> grade, None where it is left out;
    None altogether: values mean what `layouts.parse_grade` says."""

    meant: Mapping[str, int | None] | None = None

    @classmethod
    def read(cls, text: str | None) -> "Scale":
        """Of `--grade-map`: "1=0,2=1,U=", values with a comma in double quotes; a value with no
        grade, or `-`, is left out. Raises UsageError; None: no map."""
        if text is None:
            return cls()
        meant: dict[str, int | None] = {}
        for pair in next(csv.reader([text], skipinitialspace=True), []):
            value, equals, grade = pair.rpartition("=")
            if not equals or not value.strip() or grade.strip() not in (*_GRADES, *_LEFT_OUT):
                raise UsageError(
                    f"--grade-map, '{pair}': give VALUE=GRADE, a grade 0-4 or none to leave the"
                    ' value out, such as "1=0,2=1,3=2,4=3,5=4,U="'
                )
            if _fold(value) in meant:
                raise UsageError(f"--grade-map names '{value.strip()}' twice: give it one grade")
            meant[_fold(value)] = _GRADES.get(grade.strip())
        if not meant:
            raise UsageError('--grade-map is empty: give VALUE=GRADE, such as "R0=0,R1=1"')
        return cls(meant)

    def grade(self, word: str) -> int | None:
        """The grade 0-4 that a word means; None if it means none."""
        return parse_grade(word) if self.meant is None else self.meant.get(_fold(word))

    def leaves_out(self, word: str) -> bool:
        """Whether the map says that what has this value is left out."""
        return self.meant is not None and self.meant.get(_fold(word), 0) is None

    def knows(self, word: str) -> bool:
        """Whether a word means anything."""
        return self.grade(word) is not None or self.leaves_out(word)

    def unused(self, words: Iterable[str]) -> list[str]:
        """The map's values that no word is."""
        return sorted(set(self.meant or ()) - {_fold(word) for word in words})


def find_doubt(words: Iterable[str]) -> str | None:
    """Why the values of a column, or folders' names side by side, may be another scale than 0-4
    though they look like it: a sentence with what to do; None where all is well.

    Five numbers in a row that do not start from 0, and a 5 ("ungradable") where no 0 is.
    """
    words = sorted(set(words))
    number = {word: n for word in words if (n := parse_number(word)) is not None}
    found = sorted(set(number.values()))
    if not found:
        told = {word.strip().lower() for word in words}
        return ENGLISH if "r3" in told and "r4" not in told and "r0" in told else None
    five = len(found) == NUM_GRADES and found[-1] - found[0] == NUM_GRADES - 1
    if found[0] == 0 or not (five or (found[-1] == NUM_GRADES and len(found) > 1)):
        return None
    first = found[0] if five else 1
    shifted = offer_map({word: n - first for word, n in number.items()})
    kept = {word: None if n == NUM_GRADES else n for word, n in number.items()}
    other = f"; if 5 means ungradable: {offer_map(kept)}" if found[-1] == NUM_GRADES else ""
    return (
        f"{', '.join(map(str, found))} may be a scale from {first} on, each one off from 0-4: if"
        f" {first} is No DR, give {shifted}{other}"
    )


def suggest_map(words: Sequence[str]) -> str | None:
    """`--grade-map "…"` for values that were not understood, guessed by the words in them; what
    is not guessed is left out in it. None where less than two grades are guessed."""
    guessed = {word: _guess(word) for word in words}
    if len({grade for grade in guessed.values() if grade is not None}) < 2:
        return None
    return offer_map(guessed)


def offer_map(meant: Mapping[str, int | None]) -> str:
    """`--grade-map "1=0,2=1"`, ready to be pasted into a shell."""
    line = io.StringIO()
    order = sorted(meant, key=lambda word: (_leading_number(word), word))
    pairs = [f"{word}={'' if meant[word] is None else meant[word]}" for word in order]
    csv.writer(line, lineterminator="").writerow(pairs)
    text = line.getvalue()
    plain = re.search(r'["$`!\\]', text) is None
    return "--grade-map " + (f'"{text}"' if plain else shlex.quote(text))


def _guess(word: str) -> int | None:
    """The grade that the words after a numbering name: "2. Mild (or early) NPDR" is 1."""
    plain = _NICETIES.sub(" ", _NUMBERING.sub("", word))
    return parse_grade(plain) if re.search("[a-z]", plain, re.IGNORECASE) else None


def _leading_number(word: str) -> float:
    found = re.search(r"-?\d+(\.\d+)?", word)
    return float(found[0]) if found else float("inf")


def _fold(word: str) -> str:
    """What two spellings of a value have in common: " 2.0" and "2", "r1" and "R1"."""
    word = word.strip().lower()
    return re.sub(r"^(-?\d+)\.0*$", r"\1", word)
