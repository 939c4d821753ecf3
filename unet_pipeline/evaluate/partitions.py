"""Scores of the division of the reference's foreground into objects, from their overlaps alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.overlaps import OverlapTable, areas
from unet_pipeline.evaluate.scores import Score

Background = Literal["segment", "singletons"]


@dataclass(frozen=True)
class PartitionScore(Score):
    """Scores of the division of the reference's foreground, 0..1, 1 is best; None without foreground."""

    value: float | None
    """split and merge together, weighted by alpha"""
    split: float | None
    """alpha = 0: falls when the result cuts reference objects apart"""
    merge: float | None
    """alpha = 1: falls when the result joins reference objects"""


@dataclass(frozen=True)
class PairSums:
    """Ordered pairs of foreground pixels, a pixel with itself included, that lie in one segment; they add up."""

    joint: float
    """in one segment of the reference and of the result: Σ n_ij², px²"""
    result: float
    """in one segment of the result: Σ s_k², px²"""
    reference: float
    """in one segment of the reference: Σ t_l², px²"""

    def __add__(self, other: PairSums) -> PairSums:
        """Return the sums over two images whose segments have nothing in common."""
        return PairSums(self.joint + other.joint, self.result + other.result, self.reference + other.reference)

    def v_rand(self, alpha: float) -> float | None:
        """Return eq. 3 of Arganda-Carreras et al. 2015; None without foreground."""
        return self.joint / (alpha * self.result + (1 - alpha) * self.reference) if self.reference else None


def pair_sums(table: OverlapTable, background: Background = "segment") -> PairSums:
    """Return the sums behind `v_rand`; `background` as there."""
    parts = _Partition.of(table, background)
    joint, result, reference = (float(part @ part) for part in (parts.joint, parts.result, parts.reference))
    return PairSums(joint + parts.singletons, result + parts.singletons, reference)


def v_rand(table: OverlapTable, alpha: float = 0.5, background: Background = "segment") -> PartitionScore:
    """Return the foreground-restricted Rand score V_rand, and its split and merge parts.

    Arganda-Carreras et al. 2015 (Front. Neuroanat. 9:142), eq. 3: Σ p_ij² / (α Σ s_k² + (1 - α) Σ t_l²), where p_ij is
    the share of the pixels that lie in result segment i and reference segment j, s and t its margins, all over the
    pixels where the reference is not 0. This is 1 - the "adapted Rand error" of skimage, but that counts n(n - 1) where
    this counts n², and its alpha is 1 - α. With borders that were not thinned the score depends on how the pixels
    that the result calls background (0) count:

    * "segment": they are one more segment of the result, as in skimage with `ignore_labels=(0,)`;
    * "singletons": each is a segment of its own, as in the ISBI 2012 Rand error and CREMI's adapted Rand error.

    Raises:
        PipelineError: alpha outside 0..1.
    """
    _check_alpha(alpha)
    sums = pair_sums(table, background)
    return PartitionScore(value=sums.v_rand(alpha), split=sums.v_rand(0), merge=sums.v_rand(1))


def v_info(table: OverlapTable, alpha: float = 0.5, background: Background = "segment") -> PartitionScore:
    """Return the foreground-restricted information theoretic score V_info, and its split and merge parts.

    Arganda-Carreras et al. 2015, eq. 6: I(S; T) / ((1 - α) H(S) + α H(T)), S the result, T the reference, over the
    pixels where the reference is not 0; `background` as in `v_rand`. 0 / 0 is 1: with a single segment there is
    nothing to tell, so nothing was lost.

    Raises:
        PipelineError: alpha outside 0..1.
    """
    _check_alpha(alpha)
    parts = _Partition.of(table, background)
    if not parts.pixels:
        return PartitionScore(None, None, None)
    alone = parts.singletons / parts.pixels * float(np.log(parts.pixels))
    result, reference = parts.entropy(parts.result) + alone, parts.entropy(parts.reference)
    information = result + reference - parts.entropy(parts.joint) - alone

    def score(weight: float) -> float:
        most = (1 - weight) * result + weight * reference
        return min(1.0, max(0.0, information / most)) if most > 0 else 1.0

    return PartitionScore(value=score(alpha), split=score(0), merge=score(1))


@dataclass(frozen=True)
class InformationScore(Score):
    """The variation of information in bits, 0 is best; None without foreground."""

    value: float | None
    """split and merge, added"""
    split: float | None
    """H(result | reference): grows when the result cuts reference objects apart"""
    merge: float | None
    """H(reference | result): grows when the result joins reference objects"""


def variation_of_information(table: OverlapTable) -> InformationScore:
    """Return the variation of information (Meila 2007, J. Multivar. Anal. 98:873), as the CREMI challenge counts it.

    H(S | T) + H(T | S), S the result, T the reference, logarithms to base 2, over the pixels where the reference is
    not 0; what the result calls background there is one more segment of it. This is `variation_of_information` of
    skimage with `ignore_labels=(0,)`.
    """
    parts = _Partition.of(table, "segment")
    if not parts.pixels:
        return InformationScore(None, None, None)
    joint = parts.entropy(parts.joint)
    # no entropy is negative; differences of equal ones may be, by rounding
    split, merge = (max(0.0, joint - parts.entropy(sizes)) / log(2) for sizes in (parts.reference, parts.result))
    return InformationScore(value=split + merge, split=split, merge=merge)


def adapted_rand_error(table: OverlapTable) -> float | None:
    """Return the adapted Rand error as the CREMI challenge defines it, 0..1, 0 is best; None without foreground.

    1 - 2 P R / (P + R), with precision P and recall R of the pairs of pixels that lie in one segment, over the pixels
    where the reference is not 0; each pixel that the result calls background there is a segment of its own. So it is
    1 - V_rand with background "singletons". `adapted_rand_error` of skimage counts n(n - 1) pairs instead of n², and
    background as one segment.
    """
    similar = v_rand(table, background="singletons").value
    return None if similar is None else 1 - similar


@dataclass(frozen=True, eq=False)
class _Partition:
    """Sizes in px of the segments into which result, reference and both divide the reference's foreground."""

    joint: NDArray[np.float64]
    result: NDArray[np.float64]
    reference: NDArray[np.float64]
    singletons: int  # further segments of one pixel, of joint and of result
    pixels: int

    @classmethod
    def of(cls, table: OverlapTable, background: Background) -> _Partition:
        inside = table.reference > 0
        alone = inside & (table.result == 0) if background == "singletons" else np.zeros_like(inside)
        counted = inside & ~alone
        return cls(
            table.pixels[counted].astype(np.float64),
            areas(table.result[counted] + np.uint64(1), table.pixels[counted])[1].astype(np.float64),
            table.reference_areas()[1].astype(np.float64),
            int(table.pixels[alone].sum()),
            int(table.pixels[inside].sum()),
        )

    def entropy(self, sizes: NDArray[np.float64]) -> float:
        share = sizes / self.pixels
        return float(-(share * np.log(share)).sum())


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise PipelineError("alpha", "0 to 1", alpha)
