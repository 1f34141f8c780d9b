"""Numbers for people, in terminal, page and Markdown alike; "n/a" where one is undefined."""

import re
from collections.abc import Mapping
from typing import Any

BASELINES = {  # what scores without a look at an image, by its name in a record
    "majority": "always the commonest grade",
    "fellow_eye": "copying the grade of the other eye",
}

# C0 but tab and line end, C1, marks that turn or hide what stands beside them, halves of a pair.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def visible(text: str) -> str:
    """A text from outside, a file's name say, that a terminal or a browser shows and never obeys:
    what would move the cursor, colour, or turn the order of letters stands as its escape."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def visible_line(text: str) -> str:
    """As `visible`, on one line."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def figure(record: Mapping[str, Any] | None, as_percent: bool = False) -> str:
    """A figure with its 95% interval: "0.712 (0.640–0.781)", "−0.025 (−0.200 to 0.137)"."""
    if not record or record.get("value") is None:
        return "n/a"
    write = percent if as_percent else number
    told = write(record["value"])
    if interval := record.get("ci95"):
        between = " to " if interval[0] < 0 else "–"
        told += f" ({write(interval[0])}{between}{write(interval[1])})"
    return told


def signed_figure(record: Mapping[str, Any]) -> str:
    """A difference with its sign and 95% interval: "−0.041 (−0.072 to −0.011)"."""
    told = signed(record["value"])
    low_high = record["ci95"]
    return f"{told} ({signed(low_high[0])} to {signed(low_high[1])})" if low_high else told


def difference(record: Mapping[str, Any] | None) -> str:
    """A difference with its sign, 95% interval and p: "−0.041 (−0.072 to −0.011), p = 0.012"."""
    if not record:
        return "n/a"
    told = signed_figure({"value": record["difference"], "ci95": record["ci95"]})
    return ", ".join(filter(None, [told, p_value(record["p_adjusted"])]))


def mcnemar(record: Mapping[str, Any] | None) -> str:
    """Images that one run alone got right, and p: "12 : 5, p = 0.049"."""
    if not record:
        return "n/a"
    told = f"{record['a_only']:,} : {record['b_only']:,}"
    return ", ".join(filter(None, [told, p_value(record["p_adjusted"])]))


def signed(value: float) -> str:
    """Three decimals with a sign."""
    return f"{round(value, 3) + 0.0:+.3f}".replace("-", "−")  # no −0.000


def p_value(p: float | None) -> str:
    """As "p = 0.012" or "p < 0.001"; nothing where none is known."""
    return "" if p is None else "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def number(value: float | None, digits: int = 3) -> str:
    """A whole number with separators, any other with `digits` decimals."""
    if value is None:
        return "n/a"
    told = f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
    return told.replace("-", "−")


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return "n/a" if value is None else f"{value:.{digits}%}"


def scaled(value: float | None, by: float, unit: str) -> str:
    """Three digits of a large number in its unit: 11,179,077 by 1e6 in "M" is "11.2 M"."""
    return "n/a" if value is None else f"{value / by:.3g} {unit}"


def count(n: int, what: str) -> str:
    """A number of things: "1 epoch", "2,000 epochs"."""
    return f"{n:,} {what}" + "s" * (n != 1)


def duration(seconds: float) -> str:
    """A stretch of time: "45 s", "12 min", "3 h 20 min"."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(count: int) -> str:
    """Bytes of memory or disk: "1.5 GiB", "12.0 MiB"; less than none is none."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{max(0, count) / 2**20:.1f} MiB"
