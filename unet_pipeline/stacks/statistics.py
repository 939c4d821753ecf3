"""Statistics of grey values that normalisations use, from one or two passes over the blocks."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from unet_pipeline.images.halo_blocks import row_bands
from unet_pipeline.records.stack_records import Statistics

STEPS = 1000
QUANTILES = np.linspace(0, 100, STEPS + 1)
"""Percentiles that are kept, 0.0 to 100.0 in steps of 0.1."""

FIRST_BITS, SECOND_BITS = 22, 24
"""log2 of the counters of each pass, all channels together: 32 and 128 MiB."""
CHANNEL_BITS, WHOLE_BITS = 20, 16
"""log2 of the counters of a channel in the first pass; types of at most 16 bits have one for each value."""


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


class Quantiles:
    """Order statistics of grey values per channel, in flat memory, that no outlier moves.

    Values become keys: unsigned whole numbers in the same order. Counters lie on keys, not between the minimum and
    the maximum, so one extreme pixel takes one counter and leaves the others as they were.

        pass 1   count the leading bits of the keys: everything, for types of at most 16 bits
        refine   find the counters that a quantile falls into: at most 1001 per channel
        pass 2   count the bits that follow, inside those counters alone

    Exact for types of at most 16 bits, and for up to 4 channels of 32 bits, floats as well. Else too low by less than
    2**-14 of itself with up to 64 channels of float32, and 2**-21 with up to 4 channels of 64 bits, whose integers are
    compared as float64.
    """

    def __init__(self, dtype: np.dtype[Any], channels: int) -> None:
        """Start empty, for values of `dtype`: integer or float of at most 64 bits."""
        wide = dtype.kind in "ui" and dtype.itemsize == 8
        self._dtype = np.dtype(np.float64) if wide else dtype.newbyteorder("=")
        self._bits = 8 * self._dtype.itemsize
        room = min(CHANNEL_BITS, FIRST_BITS - (channels - 1).bit_length())
        self._leading = self._bits if self._bits <= WHOLE_BITS else room
        self._counts = np.zeros((channels, 1 << self._leading), np.int64)
        self._following = 0
        self._slots = np.empty((0, 0), np.int32)
        self._inner = np.empty((0, 0), np.int64)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Take in a block, `(channels, rows, columns)`; all blocks once, and after `refine` once again."""
        for band in row_bands(values):
            for channel, plane in enumerate(band):
                self._add(channel, _keys(plane.astype(self._dtype, copy=False).ravel()))

    def _add(self, channel: int, keys: npt.NDArray[Any]) -> None:
        outer = (keys >> keys.dtype.type(self._bits - self._leading)).astype(np.int64)
        if not self._following:
            np.add.at(self._counts[channel], outer, 1)
            return
        slots = self._slots[channel, outer]
        wanted = slots >= 0
        rest = self._bits - self._leading - self._following
        # Masked before the shift to int64, which the upper half of 64-bit keys exceeds.
        inner = (keys[wanted] >> keys.dtype.type(rest)) & keys.dtype.type((1 << self._following) - 1)
        np.add.at(self._inner, (slots[wanted], inner.astype(np.int64)), 1)

    def refine(self) -> bool:
        """Prepare the second pass; return whether there is to be one."""
        rest = self._bits - self._leading
        if not rest:
            return False
        self._slots = np.full(self._counts.shape, -1, np.int32)
        taken = 0
        for channel, counts in enumerate(self._counts):
            outer = np.unique(np.searchsorted(np.cumsum(counts), _ranks(int(counts.sum()))))
            self._slots[channel, outer] = np.arange(taken, taken + len(outer))
            taken += len(outer)
        self._following = min(rest, CHANNEL_BITS, SECOND_BITS - (taken - 1).bit_length())
        self._inner = np.zeros((taken, 1 << self._following), np.int64)
        return True

    def quantiles(self) -> npt.NDArray[np.float64]:
        """Return `(channels, 1001)`: the smallest grey value with 0.0, 0.1, ... 100.0 % of the pixels at or below."""
        rest = self._bits - self._leading - self._following
        found = []
        for channel, counts in enumerate(self._counts):
            total = np.cumsum(counts)
            ranks = _ranks(int(total[-1]))
            outer = np.searchsorted(total, ranks)
            keys = outer.astype(np.uint64)
            if self._following:
                slots, left = self._slots[channel, outer], ranks - (total - counts)[outer]
                within = np.cumsum(self._inner[slots[0] : slots[-1] + 1], axis=1)
                inner = [np.searchsorted(within[slot - slots[0]], rank) for slot, rank in zip(slots, left, strict=True)]
                keys = (keys << np.uint64(self._following)) | np.array(inner, np.uint64)
            found.append(_values(keys << np.uint64(rest), self._dtype).astype(np.float64))
        return np.stack(found)


def _ranks(pixels: int) -> npt.NDArray[np.int64]:
    """Return which of `pixels` sorted values, counted from 1, is each quantile."""
    return np.maximum(-(-np.arange(STEPS + 1) * pixels // STEPS), 1)


def _keys(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return unsigned integers (n,) of as many bits that sort as `values` do."""
    bits = 8 * values.dtype.itemsize
    if values.dtype.kind == "f":
        values = values + values.dtype.type(0)  # -0.0 becomes 0.0
    raw: npt.NDArray[Any] = values.view(f"u{values.dtype.itemsize}")
    if values.dtype.kind == "u":
        return raw
    sign: np.unsignedinteger[Any] = raw.dtype.type(1 << bits - 1)
    if values.dtype.kind == "i":
        signed: npt.NDArray[Any] = raw ^ sign
        return signed
    # IEEE 754 floats sort as sign and magnitude: negative ones are turned around.
    return np.where(raw & sign, ~raw, raw | sign)


def _values(keys: npt.NDArray[np.uint64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return what `_keys` was given."""
    raw: npt.NDArray[Any] = keys.astype(f"u{dtype.itemsize}")
    if dtype.kind == "u":
        return raw
    sign = raw.dtype.type(1 << 8 * dtype.itemsize - 1)
    signed: npt.NDArray[Any] = raw ^ sign if dtype.kind == "i" else np.where(raw & sign, raw ^ sign, ~raw)
    found: npt.NDArray[Any] = signed.view(dtype)
    return found


def as_record(moments: Moments, quantiles: Quantiles) -> Statistics:
    """Return the statistics as the record of ingest holds them."""
    # The edge of a counter of 64-bit floats may lie outside what there is; even NaN, above infinity.
    within = np.clip(quantiles.quantiles(), moments.low[:, None], moments.high[:, None])
    return Statistics(
        min=tuple(moments.low.tolist()),
        max=tuple(moments.high.tolist()),
        mean=tuple(moments.mean.tolist()),
        std=tuple(moments.std.tolist()),
        pixels=moments.pixels,
        quantiles=tuple(map(tuple, within.tolist())),
    )
