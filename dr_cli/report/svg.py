"""Data -> inline SVG. Text is set in the page's own font and colours, so dark mode and print work.

A run keeps its colour, its marker and its name through every chart, so that no chart needs colour
to be read. Everything drawn passes through `markupsafe`, which escapes it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import floor, log10

from markupsafe import Markup

from dr_cli.markup import mix

# Drawn about the origin, 10 units across.
MARKERS = (
    "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
    "M-4.5,-4.5h9v9h-9z",
    "M0,-6l5.5,10h-11z",
    "M0,-6l6,6l-6,6l-6,-6z",
    "M0,6l5.5,-10h-11z",
    "M-6,-2h4v-4h4v4h4v4h-4v4h-4v-4h-4z",
)
NUM_COLOURS = 7  # --run-0 ... --run-6 in style.css; 7 and 6 share no factor: 42 distinct pairs
NEUTRAL = -1  # a line that belongs to no run
MOST_MARKERS = 25  # on one line; more would hide it

# A confusion cell of no image of its row, and of all: in light and in dark mode.
SHADES = {
    "light": ((255, 255, 255), (8, 81, 156)),
    "dark": ((27, 31, 36), (158, 202, 225)),
}


@dataclass(frozen=True)
class Line:
    """One line of a chart. `style` counts runs from 0; `points` are (x, y) in data units."""

    name: str
    points: Sequence[tuple[float, float]]
    style: int = 0
    dashed: bool = False
    marked: bool = True
    kept: float | None = None
    """The x whose point has a ring: the epoch whose weights were kept."""


@dataclass(frozen=True)
class Rule:
    """A level that needs no network, from side to side, with its name on it."""

    name: str
    y: float


@dataclass(frozen=True)
class Axes:
    """A frame with data ranges, in SVG units; y grows upwards."""

    x: tuple[float, float]
    y: tuple[float, float]
    x_label: str
    y_label: str
    percent: bool = False
    ticked: bool = True  # numbers on the y axis
    left: int = 64
    width: int = 520
    height: int = 340

    right, top, bottom = 16, 34, 54

    def px(self, x: float) -> float:
        low, high = self.x
        return round(
            self.left + (x - low) / (high - low) * (self.width - self.left - self.right), 1
        )

    def py(self, y: float) -> float:
        low, high = self.y
        inner = self.height - self.top - self.bottom
        return round(self.top + (high - y) / (high - low) * inner, 1)

    def draw(self, inside: Iterable[Markup], described: str) -> Markup:
        """The whole picture: grid, tick labels, axis names, then `inside`."""
        foot, middle = self.height - 10, (self.left + self.width - self.right) / 2
        return Markup(
            '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}{}</svg>'
        ).format(
            self.width, self.height, described, self._grid() + Markup("").join(inside),
            _label(middle, foot, self.x_label), _label(2, 18, self.y_label, "start"),
        )  # fmt: skip

    def rule(self, y: float) -> Markup:
        """A faint line from side to side."""
        end = self.width - self.right
        return Markup('<path class="grid" d="M{},{}H{}"/>').format(self.left, self.py(y), end)

    def _grid(self) -> Markup:
        grid = Markup("")
        for y in place_ticks(*self.y) if self.ticked else ():
            told = _tell_tick(y, self.percent)
            grid += self.rule(y) + _label(self.left - 8, self.py(y) + 6, told, "end")
        for x in place_ticks(*self.x, whole=self.x_label == "epoch"):
            grid += _label(self.px(x), self.height - self.bottom + 21, f"{x:.10g}")
        return grid


def place_ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """At most seven round numbers from low to high: steps of 1, 2 or 5 times 10^n."""
    raw = (high - low) / 6
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    first = -floor(-low / step + 1e-9)
    count = floor((high - first * step) / step + 1e-9) + 1
    return [round((first + i) * step, 10) for i in range(count)]


@dataclass(frozen=True)
class Chart:
    """Lines in one frame, whose y range holds every point."""

    title: str
    lines: Sequence[Line]
    y_label: str
    x_label: str = "epoch"
    percent: bool = False
    square: bool = False
    """Both axes run from 0 to 1."""
    wide: bool = False
    """No point lies on the frame's left or right edge."""
    from_zero: bool = False
    """The y axis starts there."""
    rules: Sequence[Rule] = ()
    answers: Sequence[str] = ()
    """What it is, what is good, what it is here: a sentence or two each."""

    @property
    def shown(self) -> bool:
        """Whether there is a point to draw."""
        return any(line.points for line in self.lines)

    def draw(self) -> Markup:
        """With a description for those who cannot see it; "" where there is no point."""
        lines = [line for line in self.lines if line.points]
        if not lines:
            return Markup("")
        xs, ys = ([point[k] for line in lines for point in line.points] for k in (0, 1))
        ys += [rule.y for rule in self.rules]
        x = y = (0.0, 1.0)
        if not self.square:
            x = _widen(xs, 0.05 if self.wide else 0)
            y = _widen(ys, 0.05, 1 if self.percent else None)
        if self.from_zero:
            y = (0, 1.05 * max(ys) or 1)
        widest = max(len(_tell_tick(tick, self.percent)) for tick in place_ticks(*y))
        axes = Axes(x, y, self.x_label, self.y_label, self.percent, left=20 + 10 * widest)
        ends = [f"{a.name}: from {a.points[0][1]:.3g} to {a.points[-1][1]:.3g}" for a in lines]
        ends += [f"{rule.name}: {rule.y:.3g}" for rule in self.rules]
        inside = [_draw_line(axes, line) for line in lines]
        inside += [_draw_rule(axes, rule) for rule in self.rules]
        return axes.draw(inside, f"{self.title}. {'. '.join(ends)}")


@dataclass(frozen=True)
class Ridges:
    """Histograms above each other, one a row of (name, counts), each scaled to its own highest."""

    title: str
    rows: Sequence[tuple[str, Sequence[int]]]
    x: tuple[float, float]
    x_label: str
    style: int
    answers: Sequence[str] = ()
    lines: Sequence[Line] = ()  # none needs a legend
    shown = True

    def draw(self) -> Markup:
        """With a description for those who cannot see it."""
        axes = Axes(self.x, (0, len(self.rows)), self.x_label, "", ticked=False, left=188)
        width = (self.x[1] - self.x[0]) / len(self.rows[0][1])
        inside = []
        for foot, (name, counts) in zip(reversed(range(len(self.rows))), self.rows, strict=True):
            tops = [axes.py(foot + 0.9 * n / (max(counts) or 1)) for n in counts]
            ends = [axes.px(self.x[0] + (b + 1) * width) for b in range(len(counts))]
            steps = "".join(f"V{top}H{end}" for top, end in zip(tops, ends, strict=True))
            y = axes.py(foot)
            bars = Markup(
                '<path class="bars" style="--c:var(--run-{})" d="M{},{y}{}V{y}z"/>'
            ).format(self.style % NUM_COLOURS, axes.px(self.x[0]), steps, y=y)
            inside += [axes.rule(foot), bars, _label(axes.left - 8, y - 6, name, "end")]
        told = ". ".join(f"{name}: {sum(counts)} images" for name, counts in self.rows)
        return axes.draw(inside, f"Histogram of the {self.x_label} in each true grade. {told}")


def draw_swatch(line: Line) -> Markup:
    """A short piece of a line, for the legend below a chart, from (64, 44) to (130, 44)."""
    axes = Axes((0, 2), (0, 2), "", "", width=146, height=108)
    xs = (0, 1, 2) if len(line.points) > 1 else (1,)
    return _draw_line(axes, replace(line, name="", points=[(x, 1) for x in xs]))


def shade(share: float) -> str:
    """CSS variables of a confusion cell that holds `share` of its row: ground and ink.

    The ink is black or white, whichever reads better: at least 4.58 : 1 on any ground.
    """
    told = []
    for mode, (none, whole) in SHADES.items():
        ground, text = mix(none, whole, share)
        ink = {"black": "#000", "white": "#fff"}[text]
        told.append(f"--{mode}:rgb{ground};--{mode}-ink:{ink}")
    return ";".join(told)


def _tell_tick(y: float, percent: bool) -> str:
    return f"{y:.0%}" if percent else f"{y:.10g}".replace("-", "−")


def _draw_rule(axes: Axes, rule: Rule) -> Markup:
    """The level, and its name in the middle: curves begin and end at the sides."""
    y, end = axes.py(rule.y), axes.width - axes.right
    line = Markup('<path class="rule" d="M{},{}H{}"/>').format(axes.left, y, end)
    return line + _label((axes.left + end) / 2, y - 6, rule.name)


def _label(x: float, y: float, told: str, anchor: str = "middle") -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(x, y, anchor, told)


def _draw_line(axes: Axes, line: Line) -> Markup:
    """The line and its markers; over each, if the line has a name, what stands there."""
    colour = "var(--soft)" if line.style == NEUTRAL else f"var(--run-{line.style % NUM_COLOURS})"
    places = [(axes.px(x), axes.py(y)) for x, y in line.points]
    last = len(places) - 1
    marked = {*range(0, last, -(-len(places) // MOST_MARKERS)), last} if line.marked else set()
    marks = Markup("")
    for i in sorted(marked):
        x, y = line.points[i]
        value = f"{y:.1%}" if axes.percent else f"{y:.4g}"
        told = f"{line.name}: {axes.x_label} {x:.10g}, {value}"
        title = Markup("<title>{}</title>").format(told) if line.name else ""
        marks += Markup('<path d="{}" transform="translate({},{})">{}</path>').format(
            MARKERS[line.style % len(MARKERS)], *places[i], title
        )
    for (x, _), place in zip(line.points, places, strict=True):
        if x == line.kept:
            marks += Markup('<circle class="kept" cx="{}" cy="{}" r="11"/>').format(*place)
    return Markup('<g class="line{}" style="--c:{}"><path class="stroke" d="M{}"/>{}</g>').format(
        " dashed" if line.dashed else "", colour, "L".join(f"{x},{y}" for x, y in places), marks
    )


def _widen(values: Sequence[float], margin: float, top: float | None = None) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low == high:  # one epoch, or a flat line: still a frame of some height
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    low, high = low - margin * (high - low), high + margin * (high - low)
    return low, min(high, top) if top is not None and max(values) <= top else high
