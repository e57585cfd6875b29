"""Bar charts as SVG, written by hand: no library draws these few rectangles."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, LABEL_WIDTH, VALUE_WIDTH = 760, 240, 70
"""Pixels: of all, of the names on the left, and of the figures behind the longest bar."""
BAR, GAP, HEADING, GROUP_GAP = 16, 5, 34, 10
"""Pixels: height of a bar, between bars, of a panel's heading, between groups."""
COLOURS = ("#8a8f98", "#b07d4f", "#5b8db8", "#7aa667", "#c2543f", "#8e5ea2")
"""One for each name, in the order in which they come."""
FONT = "font-family='system-ui, sans-serif' font-size='12'"


def panels(charts: Sequence[tuple[str, str, Sequence[tuple[str, Sequence[tuple[str, float]]]]]]) -> str:
    """The picture: for each panel its title, the format of its figures, and groups of named figures."""
    colours: dict[str, str] = {}
    parts: list[str] = []
    top = 0
    for title, shape, groups in charts:
        parts.append(f"<text x='8' y='{top + 22}' font-weight='bold'>{escape(title)}</text>")
        top += HEADING
        highest = max((value for _, bars in groups for _, value in bars), default=0) or 1
        for group, bars in groups:
            for number, (name, value) in enumerate(bars):
                colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
                length = max(1.0, value / highest * (WIDTH - LABEL_WIDTH - VALUE_WIDTH))
                label = f"{group} · {name}" if number == 0 else name
                middle = top + BAR - 4
                parts.append(f"<text x='{LABEL_WIDTH - 8}' y='{middle}' text-anchor='end'>{escape(label)}</text>")
                parts.append(f"<rect x='{LABEL_WIDTH}' y='{top}' width='{length:.1f}' height='{BAR}' fill='{colour}'/>")
                parts.append(f"<text x='{LABEL_WIDTH + length + 6:.1f}' y='{middle}'>"
                             f"{escape(shape.format(value))}</text>")
                top += BAR + GAP
            top += GROUP_GAP
    return (f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' height='{top}' viewBox='0 0 {WIDTH} {top}' "
            f"{FONT}>\n<rect width='100%' height='100%' fill='white'/>\n" + "\n".join(parts) + "\n</svg>\n")
