"""Objects of a whole volume at once, which those found block by block must equal."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from unet_pipeline.objects.flood import flood

IGNORE = 255


def structure(connectivity, deep):
    """Neighbours in the plane, and those above and below if `deep`."""
    around = np.zeros((3, 3, 3), bool)
    around[1] = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    around[:, 1, 1] |= deep
    return around


def by_definition(volume, connectivity=4, across_planes=False, min_area_px=0, fill_holes=False):
    """Instances of a whole volume with scipy: components, then area, then holes, then numbers by the first pixel."""
    deep = across_planes and len(volume) > 1
    instances, count = np.zeros(volume.shape, np.int64), 0
    for class_index in set(np.unique(volume)) - {0, IGNORE}:
        labels, found = ndimage.label(volume == class_index, structure(connectivity, deep))
        instances[labels > 0] = labels[labels > 0] + count
        count += found
    area = np.bincount(instances.ravel())
    instances[area[instances] < min_area_px] = 0
    if fill_holes:
        around = structure(12 - connectivity, deep)
        holes, found = ndimage.label(instances == 0, around)
        border = np.zeros(volume.shape, bool)
        border[:, [0, -1]] = border[:, :, [0, -1]] = True
        border[[0, -1]] |= deep
        filled = instances.copy()
        for hole in range(1, found + 1):
            inside = holes == hole
            rim = set(instances[ndimage.binary_dilation(inside, around)]) - {0}
            if len(rim) == 1 and not (inside & (border | (volume == IGNORE))).any():
                filled[inside] = rim.pop()
        instances = filled
    kept, first = np.unique(instances[instances > 0], return_index=True)
    number = np.zeros(count + 1, np.int64)
    number[kept[np.argsort(first)]] = np.arange(1, len(kept) + 1)
    return number[instances]


def flooded(heights, seeds):
    labels = seeds.astype(np.uint32)
    flood(heights.astype(np.uint16), labels, np.full(labels.size, 7, np.int64))
    return labels
