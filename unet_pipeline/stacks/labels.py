"""The meaning of label images, and the classic mistakes in them, caught before they cost a training."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import IGNORE, Labels
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.halo_blocks import row_bands
from unet_pipeline.stacks.label_shapes import LOSSY_SHARE, PIECES_PER_ID, PIECES_RIM_SHARE, RIM_SHARE, LabelShapes

GREY_SHARE = 0.5
"""Labels are refused as grey values when more than this share of neighbouring object pixels differ."""
SAVE_ANEW = (
    "this looks like a grey-level image, or a mask that was once a JPEG or resampled: save ids as TIFF or PNG, without "
    "interpolation; if the values are classes, set labels.kind: classes"
)

LARGEST = 2**32 - 1
SHOWN = 8
"""Indices of a palette that are told."""
UNDECLARED = IGNORE - 1
"""Stands for a value that labels.values does not name; no class index, of which there are at most 32."""
MOST_STRANGE = 1000
"""Number of undeclared values after which a plane is refused without counting on."""


@dataclass
class LabelReader:
    """Turns label values into class indices and instance ids, and counts for the checks.

    Attributes:
        labels: what the values mean.
        where: the file or folder, for messages.
        lossy: whether the files are JPEGs.
        counts: pixels per class, `(classes,)`, ignored pixels left out.
        ignored: pixels nobody annotated.
        palette: pixels of each index 0 to 255, of labels that are indices of a palette.
        shapes: of instances: what their shapes tell about how they were saved.
    """

    labels: Labels
    where: str
    lossy: bool = False
    counts: npt.NDArray[np.int64] = field(init=False)
    ignored: int = 0
    shapes: LabelShapes = field(default_factory=LabelShapes)
    palette: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(256, np.int64))
    _strange: Counter[int] = field(default_factory=Counter)
    _place: str = ""

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.labels.classes), dtype=np.int64)

    def instances(
        self, values: npt.NDArray[Any], place: str, rims: bool = True
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint8]]:
        """Return instance ids and class indices of a block of instance labels, `(y, x)` uint32 and uint8.

        Args:
            values: `(y, x)` label values; 0 is background.
            place: file and plane, for messages.
            rims: whether rims of other ids around objects count as a mistake.

        Raises:
            PipelineError: negative, fractional, or larger than uint32.
        """
        ids, classes = np.empty(values.shape, np.uint32), np.empty(values.shape, np.uint8)
        for band, id_band, class_band in zip(row_bands(values), row_bands(ids), row_bands(classes), strict=True):
            numbers = self._whole_numbers(band, place)
            ignored = self._ignored(numbers)
            id_band[...] = np.where(ignored, 0, numbers)
            class_band[...] = np.where(ignored, IGNORE, id_band > 0)
            self._count(class_band)
        self.shapes.add(ids, rims)
        return ids, classes

    def classes(self, values: npt.NDArray[Any], place: str) -> npt.NDArray[np.uint8]:
        """Return class indices of a block of class labels, `(y, x)`; 255 where nobody annotated.

        Args:
            values: `(y, x)` label values.
            place: file and plane, for messages.

        Raises:
            PipelineError: if a value is not in `labels.values`; says how many pixels of the plane have it, so it comes
                with the next plane or from `finish`.
        """
        if place != self._place:
            self._refuse_strange()
            self._place = place
        result = np.empty(values.shape, np.uint8)
        for band, indices in zip(row_bands(values), row_bands(result), strict=True):
            numbers = self._whole_numbers(band, place)
            indices[...] = np.where(self._ignored(numbers), IGNORE, UNDECLARED)
            for value, name in self.labels.values.items():
                indices[numbers == value] = self.labels.classes.index(name)
            found, counts = np.unique(numbers[indices == UNDECLARED], return_counts=True)
            self._strange.update(dict(zip(found.tolist(), counts.tolist(), strict=True)))
            self._count(indices)
            if len(self._strange) > MOST_STRANGE:
                self._refuse_strange()
        return result

    def finish(self) -> list[str]:
        """Check the stack as a whole, after its last block.

        Returns:
            What is doubtful and nevertheless accepted, in sentences.

        Raises:
            PipelineError: undeclared values, all background, one value only, grey values, rims of other ids.
        """
        self._refuse_strange()
        if self.counts.sum() == 0:
            fix = "annotate some, or correct labels.ignore and labels.values"
            raise PipelineError(self.where, "annotated pixels", "labels that are all the ignore value", fix=fix)
        present = [name for name, count in zip(self.labels.classes, self.counts, strict=True) if count]
        if present == [self.labels.classes[0]]:
            fix = "check that this is the label file, and that its planes match those of the image"
            raise PipelineError(self.where, "labelled objects", f"labels that are all {present[0]}", fix=fix)
        if len(present) == 1:
            fix = "check that this is the label file, and that background has its value: 0, or what labels.values says"
            raise PipelineError(self.where, "objects and background", f"labels that are all {present[0]}", fix=fix)
        return self._tell_palette() + (self._check_instances() if self.labels.kind != "classes" else [])

    def count_palette(self, values: npt.NDArray[Any]) -> None:
        """Count the indices of a block, `(y, x)` uint8."""
        for band in row_bands(values):
            self.palette += np.bincount(band.ravel(), minlength=256)

    def _tell_palette(self) -> list[str]:
        if not (total := self.palette.sum()):
            return []
        order = np.argsort(-self.palette, kind="stable")[:SHOWN]
        shares = ", ".join(
            f"{index}: {100 * self.palette[index] / total:.3g} %" for index in order if self.palette[index]
        )
        note = f"{self.where}: a palette is read as its indices, which are of the pixels {shares}"
        if self.labels.kind != "classes":
            note += "; index 0 is the background" + (", and not the most frequent one" if order[0] else "")
        return [note]

    def _check_instances(self) -> list[str]:
        shapes = self.shapes
        if shapes.grey > GREY_SHARE:
            share = f"{100 * shapes.grey:.0f} % of neighbouring object pixels with different values"
            raise PipelineError(self.where, "instances, each with one value", share, fix=SAVE_ANEW)
        # where every piece is an object, ids may have any number of them
        many = self.labels.kind == "instances" and shapes.only is None and shapes.pieces_per_id > PIECES_PER_ID
        if shapes.rimmed > (LOSSY_SHARE if self.lossy else PIECES_RIM_SHARE if many else RIM_SHARE[self.labels.kind]):
            share = f"thin rims of other values on {100 * shapes.rimmed:.0f} % of the edges of objects"
            share += f", and {shapes.pieces_per_id:.1f} pieces of each value" if many else ""
            raise PipelineError(self.where, "instances, each with one value", share, fix=SAVE_ANEW)
        if many:
            return [
                f"{self.where}: the ids have {shapes.pieces_per_id:.1f} separate pieces each. If they are classes, set "
                "labels.kind: classes; if every piece is an object, labels.kind: pieces"
            ]
        return []

    def refuse_single(self, pieces: int, plane: int) -> None:
        """Refuse one value for `pieces` separate pieces of a plane: a mask, not instances.

        Raises:
            PipelineError: with the two ways out.
        """
        value = self.shapes.only
        background, name = self.labels.classes[:2]
        fix = (
            f"for classes set labels.kind: classes and labels.values: {{0: {background}, {value}: {name}}}; to make "
            "every connected piece an object, set labels.kind: pieces"
        )
        got = f"a mask: the value {value} alone, in {pieces} pieces in plane {plane}"
        raise PipelineError(self.where, "instances, each with its own value", got, fix=fix)

    def _whole_numbers(self, values: npt.NDArray[Any], place: str) -> npt.NDArray[np.int64]:
        if not values.size:
            return values.astype(np.int64)
        if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
            got = "NaN" if np.isnan(values).any() else "fractions"
            raise PipelineError(place, "whole numbers as label values", got, fix="save labels as integers")
        low, high = values.min(), values.max()
        largest = LARGEST - IGNORE * (self.labels.kind == "pieces")
        if low < 0 or high > largest:
            raise PipelineError(place, f"label values from 0 to {largest}", low if low < 0 else high)
        if values.dtype.kind == "f" and high > (most := 2 ** (np.finfo(values.dtype).nmant + 1)):
            fix = "save ids as integers of 32 bits, as napari does; Fiji makes float32 of them, which rounds such ids"
            raise PipelineError(place, f"label values up to {most} in {values.dtype}", high, fix=fix)
        return values.astype(np.int64)

    def _ignored(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        if self.labels.ignore is None:
            return np.zeros(numbers.shape, dtype=bool)
        return np.equal(numbers, self.labels.ignore)

    def _count(self, classes: npt.NDArray[np.uint8]) -> None:
        counts = np.bincount(classes.ravel(), minlength=256)
        self.counts += counts[: len(self.counts)]
        self.ignored += int(counts[IGNORE])

    def _refuse_strange(self) -> None:
        """Refuse a plane with values that labels.values does not name."""
        if not self._strange:
            return
        found, declared = sorted(self._strange), sorted(self.labels.values)
        listed = ", ".join(f"{value} ({self._strange[value]} px)" for value in found[:8])
        fix = "many values mean a resampled or grey mask; else add to labels.values what class each is"
        if len(found) > 8:
            listed += f", ... ({len(found)} values)"
        else:
            new = ", ".join(f"{value}: NAME" for value in found)
            fix = f"add {new} to labels.values, each NAME one of labels.classes, or set labels.ignore to such a value"
        if 255 in found and self.labels.ignore is None:
            fix = f"set labels.ignore: 255 if this is the border that VOC leaves open; else {fix}"
        nearest = min(declared, key=lambda value: abs(value - found[0]))
        raise PipelineError(self._place, f"label values {declared} (labels.values)", listed, nearest, fix)
