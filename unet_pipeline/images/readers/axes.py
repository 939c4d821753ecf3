"""The meaning of the dimensions of an array: planes (z or t), channels, height, width; and the choice of planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from unet_pipeline.errors import PipelineError

LETTERS = "tzcyx"
UNKNOWN = "?"
EXAMPLES = "'zyx', 'tyx', 'zcyx', 'yx', 'yxc'"


@dataclass(frozen=True)
class Layout:
    """The map from an array of any axis order to (planes, channels, height, width).

    Attributes:
        shape: (planes, channels, height, width).
        plane_axis: "z" or "t", the axis along which the planes lie.
        plane, channel: index of that dimension in the array, or None where the array has no such dimension.
        y, x: index of the height and of the width in the array.
    """

    shape: tuple[int, int, int, int]
    plane_axis: str
    plane: int | None
    channel: int | None
    y: int
    x: int

    def canonical(self, block: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return a view of `block`, a part of the array in its own axis order, as (planes, channels, rows, columns).

        Dimensions that are none of the four must have length 1.
        """
        order = [i for i in (self.plane, self.channel, self.y, self.x) if i is not None]
        rest = [i for i in range(block.ndim) if i not in order]
        view = block.transpose([*rest, *order]).reshape([block.shape[i] for i in order])
        if self.channel is None:
            view = np.expand_dims(view, -3)
        return view if self.plane is not None else view[np.newaxis]


def check_axes(where: object, axes: str) -> str:
    """Return the user's axes in lower case with "s" (samples) as "c".

    Raises:
        PipelineError: for letters other than t z c s y x, a letter twice, or no y or no x.
    """
    letters = axes.strip().lower().replace("s", "c")
    known = "".join(letter for letter in dict.fromkeys(letters) if letter in LETTERS)
    if letters != known or "y" not in letters or "x" not in letters:
        expected = f"letters of t z c y x, each at most once, with y and x, such as {EXAMPLES}"
        raise PipelineError(f"{where}: axes", expected, repr(axes), nearest=_mend(known))
    return letters


def _mend(letters: str) -> str:
    return letters + "".join(letter for letter in "yx" if letter not in letters)


def find_layout(where: object, shape: Sequence[int], letters: str, axes: str | None = None) -> Layout:
    """Decide what each dimension of an array is.

    Args:
        where: the file, for messages.
        shape: of the array, unsqueezed.
        letters: what the file says, one of t z c y x or "?" per dimension.
        axes: what the user says, which wins; one letter per dimension, or one per dimension longer than 1.

    Dimensions of length 1 are dropped. One unknown dimension before y is taken as z.

    Raises:
        PipelineError: if the axes do not fit the shape, t and z are both longer than 1, or dimensions stay unknown.
    """
    if min(shape, default=0) < 1:
        raise PipelineError(where, "an image with pixels", f"shape {tuple(shape)}")
    said = letters
    if axes is not None:
        said = check_axes(where, axes)
        letters = _assign(where, shape, letters, said)
    used = {i: letter for i, letter in enumerate(letters) if shape[i] > 1 or letter in "yx"}
    used = _name_unknown(where, shape, used)
    place = _unique(where, shape, used)
    if "y" not in place or "x" not in place:
        fix = f"set axes, such as {EXAMPLES}"
        raise PipelineError(where, "an image with height and width", _describe(shape, letters), fix=fix)
    if "t" in place and "z" in place:
        raise PipelineError(
            where,
            "one plane axis, z or t",
            f"{shape[place['t']]} time points of {shape[place['z']]} z planes",
            fix="split the file into stacks of one time point (or one z plane) each",
        )
    plane_axis = "t" if "t" in place or ("z" not in place and "t" in said and "z" not in said) else "z"
    plane, channel = place.get(plane_axis), place.get("c")
    length = [1 if i is None else int(shape[i]) for i in (plane, channel, place["y"], place["x"])]
    return Layout((length[0], length[1], length[2], length[3]), plane_axis, plane, channel, place["y"], place["x"])


def _assign(where: object, shape: Sequence[int], letters: str, axes: str) -> str:
    """Give the user's letters to the dimensions: to all, or to those longer than 1 (y and x always count)."""
    long = [i for i, n in enumerate(shape) if n > 1 or letters[i] in "yx"]
    if len(axes) == len(shape):
        return axes
    wanted = axes if len(axes) == len(long) else "".join(letter for letter in axes if letter in "yx")
    if len(wanted) != len(long):
        near = {2: "yx", 3: "zyx", 4: "zcyx"}.get(len(long))
        expected = f"one letter for each dimension of {_describe(shape, letters)}"
        raise PipelineError(f"{where}: axes", expected, repr(axes), nearest=near)
    given = dict(zip(long, wanted, strict=True))
    rest = iter(letter for letter in axes if letter not in wanted)
    return "".join(given.get(i) or next(rest, UNKNOWN) for i in range(len(shape)))


def _name_unknown(where: object, shape: Sequence[int], used: dict[int, str]) -> dict[int, str]:
    """Take one unknown dimension before y as z."""
    unknown = [i for i, letter in used.items() if letter == UNKNOWN]
    if not unknown:
        return used
    first = min(i for i, letter in used.items() if letter != "c") if len(used) > 2 else -1
    if len(unknown) > 1 or unknown[0] != first or {"t", "z"} & set(used.values()):
        raise PipelineError(
            where,
            "to know what each dimension is",
            "shape " + _describe([shape[i] for i in used], "".join(used.values())),
            fix=f"set axes, one letter for each dimension, such as {EXAMPLES}",
        )
    return used | {unknown[0]: "z"}


def _unique(where: object, shape: Sequence[int], used: dict[int, str]) -> dict[str, int]:
    place: dict[str, int] = {}
    for i, letter in used.items():
        if letter in place:
            raise PipelineError(
                where,
                f"one {letter} axis",
                "shape " + _describe([shape[j] for j in used], "".join(used.values())),
                fix="set axes, or save the file with one channel axis",
            )
        place[letter] = i
    return place


def _describe(shape: Sequence[int], letters: str) -> str:
    return f"{' × '.join(map(str, shape))} ({letters})"


def guess(where: object, shape: Sequence[int]) -> str:
    """Take two dimensions as y, x and three as z, y, x, unless the last may be colours.

    Raises:
        PipelineError: if the axes cannot be told; says how to give them.
    """
    if len(shape) == 2 or (len(shape) == 3 and shape[-1] not in (3, 4)):
        return "zyx"[-len(shape) :]
    got = f"shape {' × '.join(map(str, shape))} without names"
    raise PipelineError(where, "to know what each dimension is", got, fix="set axes, such as 'zyx', 'yxc' or 'tcyx'")
