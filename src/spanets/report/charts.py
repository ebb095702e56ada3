"""Draws curves and points as SVG inside of HTML, in colours for light and dark screens."""

import math
from collections.abc import Iterator, Mapping, Sequence

from spanets_runtime.html import to_html

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 380, 240
"""Size of a chart in its own units: pixels on a narrow telephone."""

MOST_POINTS = 400
"""Largest number of points of a chart's curve or cloud; others are left out, evenly spread."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 10, 36

# Okabe and Ito's colour-blind-safe palette; the second one of each pair is for dark screens. Dashes
# tell curves apart on paper.
_COLOURS = (
    ("#0072b2", "#56b4e9", ""),
    ("#d55e00", "#f08a4b", "6 3"),
    ("#007a5a", "#33c39a", "2 2"),
    ("#b0568a", "#e29cc4", "8 2 2 2"),
    ("#a07000", "#e6b422", "4 4"),
    ("#555555", "#bbbbbb", "1 3"),
)

MOST_CURVES = len(_COLOURS)


def _styles(dark: bool) -> str:
    return " ".join(
        f".c{i} {{ --curve: {colours[dark]}; --dash: {colours[2] or 'none'}; }}"
        for i, colours in enumerate(_COLOURS)
    )


STYLE = f"""
{_styles(False)}
@media screen and (prefers-color-scheme: dark) {{ {_styles(True)} }}
.charts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 300px), 1fr));
  gap: 1em; }}
.charts figure {{ display: block; margin: 0; max-width: 520px; break-inside: avoid; }}
.charts figcaption {{ font-size: 13px; }}
svg {{ width: 100%; height: auto; font: 11px system-ui, sans-serif; }}
svg text {{ fill: var(--quiet); }} svg .grid {{ stroke: var(--line); stroke-width: .6; }}
svg path {{ fill: none; stroke: var(--curve); stroke-width: 1.8; stroke-dasharray: var(--dash);
  stroke-linejoin: round; }}
svg circle {{ fill: var(--curve); }} svg .faint {{ fill-opacity: .7; }}
svg .ideal {{ stroke: var(--quiet); }}
.key {{ display: inline-block; margin-right: 1em; }}
.key svg {{ width: 26px; height: 8px; vertical-align: middle; }}
"""


def line_chart(title: str, curves: Mapping[str, Points], x_label: str, note: str = "") -> str:
    """Returns a chart of at most `MOST_CURVES` curves, with a legend below.

    Args:
        title: Title of the chart.
        curves: Points (x, y) of each curve by its name; those that are not finite are left out.
        x_label: What x is.
        note: A sentence below the chart.
    """
    return _line_chart(title, curves, x_label, note, whole=False)


def epoch_chart(title: str, curves: Mapping[str, Points]) -> str:
    """Returns a chart of curves over epochs."""
    return _line_chart(title, curves, "epoch", "", whole=True)


def _line_chart(
    title: str, curves: Mapping[str, Points], x_label: str, note: str, whole: bool
) -> str:
    assert len(curves) <= MOST_CURVES
    finite = {name: [p for p in points if _is_finite(p)] for name, points in curves.items()}
    lost = sum(map(len, curves.values())) - sum(map(len, finite.values()))
    frame = _Frame([point for points in finite.values() for point in points], whole)
    drawn = [_curve(frame, i, _thin(points)) for i, points in enumerate(finite.values())]
    note = " ".join(filter(None, [note, *_describe_lost(lost, [*finite.values()])]))
    return _figure(title, [frame.grid(x_label), *drawn], list(curves), note)


def scatter_chart(title: str, points: Points, x_label: str, y_label: str) -> str:
    """Returns a chart of points around the line y = x."""
    finite = [point for point in points if _is_finite(point)]
    values = [value for point in finite for value in point]
    low, high = min(values, default=0.0), max(values, default=1.0)
    frame = _Frame([(low, low), (high, high)])
    dots = (f'<circle class="c0 faint" r="2.2" {frame.at(*p, "c")}/>' for p in _thin(finite))
    ideal = f'<line class="ideal" {frame.at(low, low, "1")} {frame.at(high, high, "2")}/>'
    note = f"Across: {x_label}. Up: {y_label}. The line is where both are equal."
    note = " ".join([note, *_describe_lost(len(points) - len(finite), [finite])])
    return _figure(title, [frame.grid(x_label), ideal, *dots], [], note)


def _describe_lost(lost: int, drawn: Sequence[Points]) -> Iterator[str]:
    """Yields sentences about values that are not finite, and about points that are left out."""
    if lost:
        yield f"{lost} values that are not finite are left out."
    most = max(map(len, drawn), default=0)
    if most > MOST_POINTS:
        each = " of each curve" if len(drawn) > 1 else ""
        yield f"{MOST_POINTS} of {most} points{each} are drawn, evenly spread."


def _figure(title: str, drawn: Sequence[str], names: Sequence[str], note: str) -> str:
    keys = "".join(
        f'<span class="key c{i}"><svg viewBox="0 0 26 8" aria-hidden="true">'
        f'<path d="M0 4H26"/></svg> {to_html(name)}</span>'
        for i, name in enumerate(names)
    )
    return (
        f"<figure><h3>{to_html(title)}</h3>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{to_html(title)}">'
        f"{''.join(drawn)}</svg><figcaption>{keys}"
        f"{'<br>' if keys and note else ''}{to_html(note)}</figcaption></figure>"
    )


class _Frame:
    """The axes of a chart."""

    def __init__(self, points: Points, whole: bool = False) -> None:
        xs, ys = zip(*points, strict=True) if points else ((0.0, 1.0), (0.0, 1.0))
        self.x, self.y = _axis(min(xs), max(xs), whole), _axis(min(ys), max(ys))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Returns the place of a point in the chart's units."""
        (left, right, _), (low, high, _) = self.x, self.y
        across = (x - left) / (right - left) * (WIDTH - _LEFT - _RIGHT)
        up = (y - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        return round(_LEFT + across, 1), round(HEIGHT - _BOTTOM - up, 1)

    def at(self, x: float, y: float, end: str) -> str:
        """Returns the place of a point as attributes: cx and cy, or x1 and y1, or x2 and y2."""
        across, up = self.place(x, y)
        names = ("cx", "cy") if end == "c" else (f"x{end}", f"y{end}")
        return f'{names[0]}="{across}" {names[1]}="{up}"'

    def grid(self, x_label: str) -> str:
        """Returns lines and numbers of both axes."""
        (left, right, x_step), (low, high, y_step) = self.x, self.y
        parts = []
        for value in _ticks(low, high, y_step):
            across, up = self.place(left, value)
            parts.append(f'<line class="grid" x1="{across}" x2="{WIDTH - _RIGHT}" y1="{up}" ')
            parts.append(f'y2="{up}"/><text x="{_LEFT - 6}" y="{up + 4}" text-anchor="end">')
            parts.append(f"{_number(value)}</text>")
        for value in _ticks(left, right, x_step):
            across, _ = self.place(value, low)
            parts.append(f'<text x="{across}" y="{HEIGHT - _BOTTOM + 14}" text-anchor="middle">')
            parts.append(f"{_number(value)}</text>")
        middle = (_LEFT + WIDTH - _RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">')
        return "".join([*parts, to_html(x_label), "</text>"])


def _curve(frame: _Frame, number: int, points: Points) -> str:
    places = [frame.place(*point) for point in points]
    if len(places) == 1:
        return f'<circle class="c{number}" r="3" cx="{places[0][0]}" cy="{places[0][1]}"/>'
    path = "L".join(f"{x} {y}" for x, y in places)
    return f'<path class="c{number}" d="M{path}"/>' if places else ""


def _axis(low: float, high: float, whole: bool = False) -> tuple[float, float, float]:
    """Returns the ends of an axis around values, and the step of its numbers.

    Args:
        low: Smallest value.
        high: Largest value.
        whole: Whether the numbers are whole.
    """
    span = high - low
    largest = max(abs(low), abs(high))
    if not span > max(1e-9 * largest, 1e-300):  # a constant, but for rounding
        span = max(1e-6 * largest, 1.0 if whole or not largest else 0.2 * largest, 1e-300)
        low, high = low - span / 2, high + span / 2
    raw = span / 5
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw)
    return low - 0.03 * span, high + 0.03 * span, max(1.0, step) if whole else step


def _ticks(low: float, high: float, step: float) -> list[float]:
    first = math.ceil(low / step)
    return [i * step for i in range(first, math.floor(high / step) + 1)]


def _number(value: float) -> str:
    return f"{value:.6g}" if abs(value) > 1e-12 else "0"


def _is_finite(point: tuple[float, float]) -> bool:
    # Larger numbers would overflow in the difference of the ends of an axis.
    return all(math.isfinite(value) and abs(value) < 1e300 for value in point)


def _thin(points: Points) -> Points:
    count = len(points)
    if count <= MOST_POINTS:
        return points
    return [points[i * (count - 1) // (MOST_POINTS - 1)] for i in range(MOST_POINTS)]
