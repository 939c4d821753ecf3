"""Statistics of grey values that normalisations use, from one or two passes over the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.halo_blocks import row_bands

BINS = 65536
QUANTILES = np.linspace(0, 100, 1001)
"""Percentiles that are kept, 0.0 to 100.0 in steps of 0.1."""


class Moments:
    """Minimum, maximum, mean and standard deviation per channel, block by block."""

    def __init__(self, channels: int) -> None:
        """Start empty."""
        self.pixels = 0
        self.low = np.full(channels, np.inf)
        self.high = np.full(channels, -np.inf)
        self.mean = np.zeros(channels)
        self._squares = np.zeros(channels)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in a block, `(channels, rows, columns)`, merging sums by Chan's formula: large offsets are safe."""
        for band in row_bands(values):
            self._add(band)

    def _add(self, values: npt.NDArray[Any]) -> None:
        flat = values.reshape(len(values), -1).astype(np.float64)
        self.low, self.high = np.minimum(self.low, flat.min(axis=1)), np.maximum(self.high, flat.max(axis=1))
        count, mean = flat.shape[1], flat.mean(axis=1)
        delta, total = mean - self.mean, self.pixels + count
        self._squares += ((flat - mean[:, None]) ** 2).sum(axis=1) + delta**2 * self.pixels * count / total
        self.mean = self.mean + delta * count / total
        self.pixels = total

    @property
    def std(self) -> npt.NDArray[np.float64]:
        """Population standard deviation, (channels,)."""
        return np.sqrt(self._squares / max(self.pixels, 1))


class Histogram:
    """Counts of grey values per channel; exact for 8- and 16-bit integers, 65536 equal bins otherwise."""

    def __init__(self, dtype: np.dtype[Any], low: npt.NDArray[Any], high: npt.NDArray[Any]) -> None:
        """Set the bins: one per value for small integers, else between the `low` and `high` of each channel."""
        self.exact = dtype.kind in "ui" and dtype.itemsize <= 2
        self.low = np.full(len(low), float(np.iinfo(dtype).min)) if self.exact else low.astype(np.float64)
        span = high.astype(np.float64) - self.low
        self.width = np.ones(len(low)) if self.exact else np.where(span > 0, span, 1.0) / (BINS - 1)
        self.counts = np.zeros((len(low), BINS), dtype=np.int64)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in a block, `(channels, rows, columns)`."""
        for band in row_bands(values):
            for channel, plane in enumerate(band):
                self.counts[channel] += np.bincount(self._bins(plane.ravel(), channel), minlength=BINS)[:BINS]

    def _bins(self, values: npt.NDArray[Any], channel: int) -> npt.NDArray[np.int64]:
        bins: npt.NDArray[np.int64]
        if self.exact:
            bins = values.astype(np.int64) - int(self.low[channel])
        else:
            bins = np.rint((values.astype(np.float64) - self.low[channel]) / self.width[channel]).astype(np.int64)
        return bins

    def quantiles(self) -> npt.NDArray[np.float64]:
        """Return `(channels, 1001)`: the smallest grey value with 0.0, 0.1, ... 100.0 % of the pixels at or below."""
        rows = []
        for low, width, counts in zip(self.low, self.width, self.counts, strict=True):
            share = np.cumsum(counts)
            rank = np.clip(np.ceil(QUANTILES / 100 * share[-1]), 1, share[-1])
            rows.append(low + width * np.searchsorted(share, rank))
        return np.stack(rows)


def as_record(moments: Moments, histogram: Histogram) -> dict[str, Any]:
    """Return the statistics as plain values: min, max, mean, std, pixels, quantiles."""
    return {
        "min": moments.low.tolist(),
        "max": moments.high.tolist(),
        "mean": moments.mean.tolist(),
        "std": moments.std.tolist(),
        "pixels": moments.pixels,
        "quantiles": np.round(histogram.quantiles(), 6).tolist(),
    }
