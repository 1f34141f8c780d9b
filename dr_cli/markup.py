"""What a notebook shows: small tables as HTML. Every word in them is escaped by `markupsafe`.

Text takes the notebook's own colour, light or dark; a cell that has a colour of its own has one for
its text, too. Styles stand in the tags, for notebooks drop style sheets.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

Text = object  # str, or Markup, which is HTML already; anything else as str() says it
_LEFT = "text-align:left;vertical-align:top;padding:2px 10px"
Colour = tuple[int, int, int]  # sRGB, 0 to 255
_LIGHT, _DARK = (247, 251, 255), (8, 48, 107)  # the ends of Blues


def join(parts: Iterable[str]) -> Markup:
    """One after the other."""
    return Markup("").join(parts)


def tag(name: str, content: Text, style: str = "") -> Markup:
    """<name style>content</name>"""
    return Markup("<{0} style='{1}'>{2}</{0}>").format(name, style, content)


def table(heads: Sequence[Text], rows: Iterable[Iterable[Text]]) -> Markup:
    """Columns under their heads; what is `cell`s already keeps its style."""
    head = tag("tr", join(tag("th", one, _LEFT) for one in heads)) if heads else Markup("")
    body = join(tag("tr", join(_cell(one) for one in row)) for row in rows)
    return tag("table", head + body)


def facts(told: Mapping[str, Text]) -> Markup:
    """A row a fact: its name, and what it is."""
    return table((), ([tag("th", name, _LEFT), value] for name, value in told.items()))


def _cell(content: Text) -> Markup:
    made = isinstance(content, Markup) and content.startswith(("<td ", "<th "))
    return Markup(content) if made else tag("td", content, _LEFT)


def shade(content: Text, share: float) -> Markup:
    """A cell from light (0) to dark blue (1), its text black or white, whichever is read better."""
    ground, text = mix(_LIGHT, _DARK, share)
    look = f"background:#{bytes(ground).hex()};color:{text};text-align:center;padding:4px 10px"
    return tag("td", content, look)


def mix(none: Colour, whole: Colour, share: float) -> tuple[Colour, str]:
    """The colour a share of the way from one to the other, and "black" or "white" for a text on it,
    whichever stands out."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(none, whole, strict=True))
    ground = red, green, blue
    text = "black" if luminance(np.array(ground) / 255) > DARK_TEXT_ABOVE else "white"
    return ground, text


DARK_TEXT_ABOVE = 0.179
"""The luminance where black and white text have the same contrast by WCAG 2.2, 4.6:1:
(L + 0.05) / 0.05 = 1.05 / (L + 0.05)."""


def luminance(colours: ArrayLike) -> NDArray[np.float64]:
    """Relative luminance, WCAG 2.2: sRGB [..., 3] in [0, 1] -> [...]."""
    colours = np.asarray(colours, np.float64)
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)
