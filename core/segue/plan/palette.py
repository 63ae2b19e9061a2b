"""Colours of services in drawings: well apart, the same in every drawing of a plan."""

from __future__ import annotations

from colorsys import hls_to_rgb
from typing import NamedTuple

_HUES = (215, 150, 30, 280, 350, 180, 55, 320, 100, 250)
COLOURS = len(_HUES)
"""How many there are before they repeat."""


class Colour(NamedTuple):
    """Fill and line on a light and on a dark page, as `#rrggbb`."""

    fill: str
    line: str
    dark_fill: str
    dark_line: str


def colour(number: int) -> Colour:
    """The colour of the service with this number."""
    hue = _HUES[number % COLOURS]
    return Colour(_hex(hue, 0.95, 0.7), _hex(hue, 0.42, 0.5), _hex(hue, 0.14, 0.35), _hex(hue, 0.66, 0.5))


def _hex(hue: int, lightness: float, saturation: float) -> str:
    return "#" + "".join(f"{round(part * 255):02x}" for part in hls_to_rgb(hue / 360, lightness, saturation))
