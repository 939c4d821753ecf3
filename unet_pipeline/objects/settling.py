"""What a block settles by itself: objects that lie inside of it, and the holes in them. The rest are nodes of a graph.

A fragment that touches no other block is settled: its object is as large as it will get, so it is kept or dropped. Only
what reaches another block, and holes between such, wait for the whole volume: they become nodes. So what is kept of a
block grows with its border, not with its area.

Two facts make it exact. A hole that reaches out of the block is never filled by an object inside of it: going straight
on from where it leaves, it ends at another object or at the border of the volume. So a node that touches an object
inside of the block counts as open. And background whose only neighbour is one object goes where that object goes: it
is filled, or it is background beside background.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unet_pipeline.objects.component_options import ComponentOptions
from unet_pipeline.objects.fragments import Fragments, Keys, ends, join, keys_of

NONE = 2**62


@dataclass(frozen=True)
class Nodes:
    """What waits for the whole volume; entry 0 of the volume's stands for none.

    Attributes:
        area: (nodes,) int64, px.
        filled: (nodes,) int64, px of the background that goes where the node goes.
        first: (nodes,) int64, index of the first pixel in the volume; of background it does not matter.
        class_index: (nodes,) uint8 or uint32, 0 for background.
        is_open: (nodes,) bool, as background it is no hole.
    """

    area: NDArray[np.int64]
    filled: NDArray[np.int64]
    first: NDArray[np.int64]
    class_index: NDArray[Any]
    is_open: NDArray[np.bool_]


@dataclass(frozen=True)
class Settled:
    """A block as it is kept.

    Attributes:
        becomes: (fragments,) int64, what each fragment becomes: 0 background, n > 0 the n-th object, -n the n-th node.
        area: (objects,) int64, px, filled holes included.
        first: (objects,) int64, index of the first pixel in the volume.
        filled_px: pixels of holes in them.
        nodes: what is not settled.
        joins: pairs of nodes, counted from 1, that touch as foreground does.
        beside: pairs of nodes that touch as background does.
    """

    becomes: NDArray[np.int64]
    area: NDArray[np.int64]
    first: NDArray[np.int64]
    filled_px: int
    nodes: Nodes
    joins: Keys
    beside: Keys


@dataclass(frozen=True)
class Joined:
    """Fragments of one class that touch, as components.

    Attributes:
        root: (fragments,) int64, the smallest fragment of its component.
        area, first: (fragments,) int64, of the component, at its root.
    """

    root: NDArray[np.int64]
    area: NDArray[np.int64]
    first: NDArray[np.int64]


def joined(class_index: NDArray[Any], area: NDArray[np.int64], first: NDArray[np.int64], foreground: Keys) -> Joined:
    """Join what is of one class and touches, of measures (n,); contacts (k,) of different classes join nothing."""
    a, b = ends(foreground)
    root = join(len(area), foreground[(class_index[a] == class_index[b]) & (class_index[a] > 0)])
    total, earliest = np.zeros_like(area), first.copy()
    np.add.at(total, root, area)
    np.minimum.at(earliest, root, first)
    return Joined(root, total, earliest)


@dataclass(frozen=True)
class Holes:
    """Background that touches background, and what it touches.

    Attributes:
        root: (fragments,) int64, the smallest fragment of its hole.
        is_open: (fragments,) bool, at the root: it is no hole.
        lowest, highest: (fragments,) int64, at the root: the smallest and the largest owner beside it; `NONE` and 0
            where there is none.
        inside, around: (contacts,) int64, hole and owner of each contact.
    """

    root: NDArray[np.int64]
    is_open: NDArray[np.bool_]
    lowest: NDArray[np.int64]
    highest: NDArray[np.int64]
    inside: NDArray[np.int64]
    around: NDArray[np.int64]


def holes(owner: NDArray[np.int64], is_open: NDArray[np.bool_], background: Keys) -> Holes:
    """Join background to holes.

    Args:
        owner: (fragments,) component of each fragment, 0 for background, dropped components included.
        is_open: (fragments,) bool.
        background: (n,) pairs that touch in the connectivity of the background.
    """
    a, b = ends(background)
    back = owner == 0
    root = join(len(owner), background[back[a] & back[b]])
    open_roots = np.zeros(len(owner), np.bool_)
    open_roots[root[is_open & back]] = True
    # contacts between background and instances; where smallest and largest neighbour agree there is only one
    rim = back[a] != back[b]
    inside, around = root[np.where(back[a], a, b)[rim]], owner[np.where(back[a], b, a)[rim]]
    lowest, highest = np.full_like(owner, NONE), np.zeros_like(owner)
    np.minimum.at(lowest, inside, around)
    np.maximum.at(highest, inside, around)
    return Holes(root, open_roots, lowest, highest, inside, around)


def settle(fragments: Fragments, options: ComponentOptions) -> Settled:
    """Settle what no other block can change."""
    foreground, background = options.contacts(fragments.straight, fragments.diagonal)
    if options.corners_join and options.fill_holes:
        # dropped, what joins at corners only falls apart to background that does not: fragments stay apart until then
        return _unsettled(fragments, foreground, background)
    whole = joined(fragments.class_index, fragments.area, fragments.first, foreground)
    root, waits = whole.root, _any(fragments.reaches, whole.root)
    dropped = ~waits & (whole.area < options.min_area_px)
    owner = np.where((fragments.class_index > 0) & ~dropped[root], root, 0)
    head, is_open = owner, _any(fragments.is_open, root)
    waits &= owner == root
    if options.fill_holes:
        found = holes(owner, fragments.is_open, background)
        out = _any(fragments.reaches & (owner == 0), found.root)
        head, between = _followed(owner, found, out, waits)
        is_open = _opened(is_open, owner, found, out | between, waits, background)
        waits = waits | out | between
    return _kept(fragments, whole, owner, head, waits, is_open, background if options.fill_holes else background[:0])


def _unsettled(fragments: Fragments, foreground: Keys, background: Keys) -> Settled:
    """Return every fragment as a node."""
    none, rest = np.zeros(0, np.int64), slice(1, None)
    area, filled = fragments.area[rest], np.zeros_like(fragments.area[rest])
    nodes = Nodes(area, filled, fragments.first[rest], fragments.class_index[rest], fragments.is_open[rest])
    return Settled(-np.arange(len(fragments.area)), none, none, 0, nodes, foreground, background)


def _any(flags: NDArray[np.bool_], root: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return, at each root, whether one of its fragments has the flag."""
    marked = np.zeros_like(flags)
    marked[root[flags]] = True
    return marked


def _followed(
    owner: NDArray[np.int64], found: Holes, out: NDArray[np.bool_], waits: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the root that each fragment follows (0: background for good), and the holes inside that must wait."""
    closed = ~out & ~found.is_open
    one = closed & (found.lowest == found.highest)
    settled = np.zeros_like(out)  # touches an object that is settled
    settled[found.inside[~waits[found.around]]] = True
    between = closed & (found.lowest < found.highest) & ~settled
    own = np.where(out | between, np.arange(len(owner)), 0)
    return np.where(owner > 0, owner, np.where(one, found.lowest, own)[found.root]), between


def _opened(
    is_open: NDArray[np.bool_],
    owner: NDArray[np.int64],
    found: Holes,
    kept: NDArray[np.bool_],
    waits: NDArray[np.bool_],
    background: Keys,
) -> NDArray[np.bool_]:
    """Return, at the roots of components and of holes, whether they can be part of no hole that is filled."""
    is_open = is_open | found.is_open
    # background that is never filled opens what may come to be part of it; with one neighbour it is filled with it
    never = ~kept & ((found.lowest < found.highest) | found.is_open)
    is_open[found.around[never[found.inside]]] = True
    is_open[found.inside[~waits[found.around]]] = True
    a, b = (owner[end] for end in ends(background))
    apart = (a != b) & (a > 0) & (b > 0)
    for one, other in ((a, b), (b, a)):
        is_open[one[apart & ~waits[other]]] = True
    return is_open


def _kept(
    fragments: Fragments,
    whole: Joined,
    owner: NDArray[np.int64],
    head: NDArray[np.int64],
    waits: NDArray[np.bool_],
    is_open: NDArray[np.bool_],
    background: Keys,
) -> Settled:
    heads = np.flatnonzero(_any(head > 0, head))
    objects, nodes = heads[~waits[heads]], heads[waits[heads]]
    number = np.zeros(len(head), np.int64)
    number[objects], number[nodes] = np.arange(1, len(objects) + 1), -np.arange(1, len(nodes) + 1)
    becomes = number[head]
    # background that follows an object is a hole of it; background that waits by itself is a node of class 0
    follows = (owner == 0) & (owner[head] > 0)
    own, filled = np.zeros_like(whole.area), np.zeros_like(whole.area)
    np.add.at(own, head[~follows], fragments.area[~follows])
    np.add.at(filled, head[follows], fragments.area[follows])
    a, b = (becomes[end] for end in ends(background))
    beside = (a < 0) & (b < 0) & (a != b)
    kind = np.where(owner[nodes] > 0, fragments.class_index[nodes], 0).astype(fragments.class_index.dtype)
    return Settled(
        becomes,
        (own + filled)[objects],
        whole.first[objects],
        int(filled[objects].sum()),
        Nodes(own[nodes], filled[nodes], whole.first[nodes], kind, is_open[nodes]),
        np.zeros(0, np.int64),
        np.unique(keys_of(-a[beside], -b[beside])),
    )
