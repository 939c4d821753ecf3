"""Outlines joined over blocks, against the pixels that they go around."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path
from scipy import ndimage
from skimage.measure import label

from unet_pipeline.objects.box import Box
from unet_pipeline.objects.measures import HALO_PX, Block, fields
from unet_pipeline.objects.outlines import Edges


def polygons(labels, block_px):
    parts = []
    for inner in Box.of(0, slice(0, labels.shape[0]), slice(0, labels.shape[1])).divided(block_px, block_px):
        outer = inner.grown(HALO_PX, labels.shape)
        block = Block(labels[outer.window], outer, inner, fields(0, 0, True))
        parts.append(Edges.of(block.ids, block.local, HALO_PX, (inner.rows.start, inner.columns.start)))
    return Edges.merged(parts).polygons()


def area(ring):
    x, y = ring.T
    return (x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 30), st.integers(1, 30)), st.integers(1, 31), st.integers(0, 2**32 - 1),
    st.floats(0, 2), st.sampled_from([0, 1, 2]),
)  # fmt: skip
def test_polygons_hold_the_pixels_of_their_object(shape, block_px, seed, coarse, connectivity):
    """With islands in holes, and holes and parts that touch at corners; connectivity 0: all pixels are one object."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), coarse) > 0
    labels = (label(noise, connectivity=connectivity) if connectivity else noise).astype(np.uint32)
    found = polygons(labels, block_px)
    assert set(found) == set(np.unique(labels[labels > 0]).tolist())
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5
    for one, parts in found.items():
        covered = np.zeros(labels.size, int)
        for outer, *holes in parts:
            assert area(outer) > 0 and all(area(hole) < 0 for hole in holes)
            within = Path(np.vstack([outer, outer[:1]])).contains_points(centres)
            for hole in holes:
                cut = Path(np.vstack([hole, hole[:1]])).contains_points(centres)
                assert within[cut].all(), "a hole lies within its ring, and in no other hole"
                within &= ~cut
            covered += within
        np.testing.assert_array_equal(covered.reshape(shape), labels == one)
        for ring in (ring for part in parts for ring in part):
            assert len({tuple(point) for point in ring.tolist()}) == len(ring), "no ring meets itself"
            assert (np.abs(np.roll(ring, -1, axis=0) - ring) > 0).sum(axis=1).tolist() == [1] * len(ring)
