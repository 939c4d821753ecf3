"""Normalisation of grey values: one offset and one scale per channel, of a stack or of a model, never of a tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from unet_pipeline.config.sections import Normalise
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.stack_records import Statistics
from unet_pipeline.stacks.statistics import QUANTILES as LEVELS

BISECTIONS = 64
"""Halvings that narrow a quantile down to the last bit of a float64."""

ROUNDING = 1e-9
"""Percent by which the weighted sum of the stacks' shares may fall short of a percentile through rounding."""


@dataclass(frozen=True)
class Normaliser:
    """The affine map (value - offset) * scale, per channel.

    Attributes:
        offset: grey value that becomes 0, per channel.
        scale: factor, per channel; finite and above 0.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]

    def __call__(self, raw: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Normalise grey values.

        The map acts pixel by pixel, so a tile gets the same bits as the whole image. Integers above 16 bits and
        float64 lose their offset in float64, the others in float32, where they are exact.

        Args:
            raw: (channels, y, x) or (channels, z, y, x), any integer or floating dtype.

        Returns:
            float32 of the same shape.

        Raises:
            PipelineError: if the number of channels is another.
        """
        self.check_channels(len(raw))
        wide = raw.dtype.itemsize > 2 and raw.dtype != np.float32
        work = np.dtype(np.float64 if wide else np.float32)
        offset, scale = (per_channel(np.asarray(part, dtype=work), raw) for part in (self.offset, self.scale))
        values: npt.NDArray[np.float32] = ((raw.astype(work) - offset) * scale).astype(np.float32, copy=False)
        return values

    def check_channels(self, channels: int) -> None:
        """Refuse another number of channels than was normalised."""
        if channels != len(self.offset):
            raise PipelineError("image", f"{len(self.offset)} channels, as normalised", f"{channels} channels")

    def to_json(self) -> dict[str, list[float]]:
        """Return plain values for a record; `from_json` gives the same normaliser back, bit for bit."""
        return {"offset": list(self.offset), "scale": list(self.scale)}

    @classmethod
    def from_json(cls, value: object, where: object) -> Normaliser:
        """Read what `to_json` wrote.

        Args:
            value: {"offset": [per channel], "scale": [per channel]}.
            where: file the value comes from, for the message.

        Raises:
            PipelineError: if the value is not that.
        """
        try:
            offset, scale = (tuple(float(part) for part in value[name]) for name in ("offset", "scale"))  # type: ignore[index]
        except (KeyError, TypeError, ValueError) as error:
            raise PipelineError(where, "a normaliser: offset and scale per channel", repr(value)) from error
        if not offset or len(offset) != len(scale) or not np.isfinite(offset + scale).all() or min(scale) <= 0:
            raise PipelineError(where, "one finite offset and one scale above 0 per channel", repr(value))
        return cls(offset, scale)


T = TypeVar("T", bound=Any)


def per_channel(values: T, image: Any) -> T:
    """Return values (channels,) in a shape that meets an image (channels, ..., y, x); arrays or tensors."""
    found: T = values.reshape(-1, *[1] * (image.ndim - 1))
    return found


def from_statistics(options: Normalise, statistics: Statistics, dtype: npt.DTypeLike) -> Normaliser:
    """Return the normaliser of a stack, or of a model from merged statistics.

    A channel whose percentiles coincide (a dark image with few bright spots) is spread between its minimum and maximum
    instead; a constant channel becomes 0 everywhere.

    Args:
        options: section `normalise` of the configuration.
        statistics: of the grey values, as ingest writes.
        dtype: data type of the image; matters to method "range" alone.

    Raises:
        PipelineError: method "range" with floating values outside 0..1.
    """
    methods = {"percentile": _percentile, "zscore": _zscore, "fixed": _fixed, "none": _none}
    if options.method == "range":
        return _range(statistics, np.dtype(dtype))
    return methods[options.method](options, statistics)


def _percentile(options: Normalise, statistics: Statistics) -> Normaliser:
    quantiles = np.asarray(statistics.quantiles, dtype=np.float64)
    low = np.array([np.interp(options.low, LEVELS, channel) for channel in quantiles])
    high = np.array([np.interp(options.high, LEVELS, channel) for channel in quantiles])
    smallest, largest = np.asarray(statistics.min, np.float64), np.asarray(statistics.max, np.float64)
    flat = high <= low
    return _between(np.where(flat, smallest, low), np.where(flat, largest, high))


def _zscore(options: Normalise, statistics: Statistics) -> Normaliser:
    mean = np.asarray(statistics.mean, np.float64)
    return _between(mean, mean + np.asarray(statistics.std, np.float64))


def _fixed(options: Normalise, statistics: Statistics) -> Normaliser:
    channels = len(statistics.min)
    return _between(np.full(channels, options.black), np.full(channels, options.white))


def _none(options: Normalise, statistics: Statistics) -> Normaliser:
    channels = len(statistics.min)
    return Normaliser((0.0,) * channels, (1.0,) * channels)


def _range(statistics: Statistics, dtype: np.dtype[Any]) -> Normaliser:
    channels = len(statistics.min)
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        return _between(np.full(channels, float(limits.min)), np.full(channels, float(limits.max)))
    low, high = min(statistics.min), max(statistics.max)
    if low < 0 or high > 1:
        raise PipelineError(
            "normalise.method", "values in 0..1 for range with a floating image", f"{low:g}..{high:g}",
            "percentile", "floating values have no range of their own: use percentile or zscore",
        )  # fmt: skip
    return Normaliser((0.0,) * channels, (1.0,) * channels)


def _between(zero: npt.NDArray[np.float64], one: npt.NDArray[np.float64]) -> Normaliser:
    """Map `zero` to 0 and `one` to 1; where they are equal, or too near for a finite float32, the scale is 1."""
    span = one - zero
    tiny = ~(span > np.maximum(np.abs(zero), np.abs(one)) * 1e-12 + 1e-30)
    scale = 1.0 / np.where(tiny, 1.0, span)
    return Normaliser(tuple(zero.tolist()), tuple(scale.tolist()))


def merge(statistics: Sequence[Statistics]) -> Statistics:
    """Merge the statistics of several stacks as if all their pixels were one image (scope "model").

    Minimum, maximum, mean and standard deviation are exact. The quantile function of a stack is taken as linear between
    its 1001 values; the merged distribution function is the mean of the stacks' weighted by pixels,
    F = sum(n_i F_i) / sum(n_i), and is inverted by bisection at the same 1001 percentiles.

    Args:
        statistics: of each stack, as ingest writes.

    Raises:
        PipelineError: if there are none, or the numbers of channels differ.
    """
    channels = {len(one.min) for one in statistics}
    if len(channels) != 1:
        raise PipelineError(
            "normalise.scope", "training stacks with the same number of channels", sorted(channels) or "no stack"
        )
    if len(statistics) == 1:
        return statistics[0]
    pixels = np.array([one.pixels for one in statistics], dtype=np.float64)
    mean, variance = _moments(statistics, pixels)
    quantiles = [
        _merged_quantiles([np.asarray(one.quantiles[channel], np.float64) for one in statistics], pixels)
        for channel in range(channels.pop())
    ]
    return Statistics(
        min=tuple(np.min([one.min for one in statistics], axis=0).tolist()),
        max=tuple(np.max([one.max for one in statistics], axis=0).tolist()),
        mean=tuple(mean.tolist()),
        std=tuple(np.sqrt(variance).tolist()),
        pixels=sum(one.pixels for one in statistics),
        quantiles=tuple(tuple(channel.tolist()) for channel in quantiles),
    )


def _moments(
    statistics: Sequence[Statistics], pixels: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    share = (pixels / pixels.sum())[:, None]
    means = np.array([one.mean for one in statistics], dtype=np.float64)
    stds = np.array([one.std for one in statistics], dtype=np.float64)
    mean = (share * means).sum(axis=0)
    return mean, (share * (stds**2 + (means - mean) ** 2)).sum(axis=0)


def _merged_quantiles(
    functions: Sequence[npt.NDArray[np.float64]], pixels: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the 1001 values v with sum(n_i F_i(v)) / sum(n_i) = percentile."""
    share = pixels / pixels.sum()
    low = np.full(LEVELS.shape, min(function[0] for function in functions))
    high = np.full(LEVELS.shape, max(function[-1] for function in functions))
    for _ in range(BISECTIONS):
        middle = 0.5 * (low + high)
        reached = sum(
            part * np.interp(middle, function, LEVELS) for part, function in zip(share, functions, strict=True)
        )
        below = reached < LEVELS - ROUNDING
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.maximum.accumulate(high)
