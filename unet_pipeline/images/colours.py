"""The colours of classes, in pictures, on the page and in viewers: those of Okabe and Ito (2008)."""

from __future__ import annotations

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""

UNKNOWN: Colour = (130, 138, 148)
"""Of pixels nobody annotated."""

CLASS_COLOURS: tuple[Colour, ...] = (
    (17, 24, 32), (86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (0, 114, 178),
    (213, 94, 0),
)  # fmt: skip


def class_colour(index: int) -> Colour:
    """Return the colour of a class; they repeat after eight, the background's only once."""
    foreground = CLASS_COLOURS[1:]
    return CLASS_COLOURS[0] if index == 0 else foreground[(index - 1) % len(foreground)]
