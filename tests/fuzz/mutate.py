"""Changes that break files in the ways attackers and bad disks do; all drawn from one random generator."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

from fuzz.tree import LINK, Tree

NUMBERS = (0, 1, 2, 3, 127, 128, 255, 256, 4095, 4096, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**62,
           2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 255, 65536, 10**9, 2**31, 2**63, 2**64, 10**40, -(10**18), 0.5, -0.0, 1e308,
    float("inf"), float("nan"), "", "0", "x", "..", "../../../../etc/passwd", "/etc/passwd", "/dev/zero", "a\0b",
    "$(touch pwned)", "`id`", "'; touch pwned; '", "-rf", "name with \"quotes\"", "line\nbreak", "\ud800", "é\u202e",
    "x" * 5000, "9" * 5000,
    [], {}, [[]], [None], [0], [-1], [10**12], [10**9] * 3, [1e999], ["x"], {"": None}, {"x": {}},
    [[[[[[[[]]]]]]]], "pickle", "|O", "<f8", ">u4", "uint8", "float16", "complex64",
)  # fmt: skip
TEXTS = (
    b"$(touch pwned)", b"../../../../etc/passwd", b"/dev/zero", b"\0", b"\xff\xfe", b"1e999", b"-1", b"nan", b"inf",
    b"99999999999999999999",
    b"<!DOCTYPE x [<!ENTITY a \"b\">]>", b"&lt;", b"\t", b"\n", b"\r\n", b"#", b"{", b"[", b"]",
    b"\"", b"'", b"&a *a", b"<<: *a", b"!!python/object/apply:os.system [id]", b"2024-99-99", b"*", b"?", b"~nobody/x",
    b"\xed\xa0\x80", b"\xe2\x80\xa8", b"0x10", b"1_000", b"9" * 5000,
)  # fmt: skip
LINKS = (b"/etc/passwd", b"/dev/zero", b"/", b".", b"..", b"nowhere", b"../../results")

FOLDER_LINKS = (b".", b"..", b"../..", b"nowhere", b"/proc/self", b"/dev/zero")
"""For folders that are written to: nothing that a mistake of the library could harm."""


def mutate_tree(tree: Tree, rng: random.Random, others: list[Tree] | None = None) -> Tree:
    """Return a changed copy of a folder: one file mostly, now and then a name, a link or a part of another input."""
    changed = dict(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        if not changed:
            return dict(tree)
        records = [one for one in sorted(changed) if one.endswith((".json", ".sha256")) and ".zarr/" not in one]
        # A results folder is mostly chunks, which the Zarr target has already.
        name = rng.choice(records if len(changed) > 50 and records and rng.random() < 0.85 else sorted(changed))
        kind = rng.random()
        if kind < 0.04 and len(changed) > 1:
            del changed[name]
        elif kind < 0.06:
            changed[name] = LINK + rng.choice(LINKS)
        elif kind < 0.07 and ".zarr/" in name:
            _link_folder(changed, name, rng)
        elif kind < 0.08:
            changed[rng.choice(sorted(changed))] = changed[name]
        elif kind < 0.11 and others:
            other = rng.choice(others)
            changed[name] = other[rng.choice(sorted(other))] if other else b""
        else:
            changed[name] = mutate_file(changed[name], rng)
    return changed


def _link_folder(tree: Tree, name: str, rng: random.Random) -> None:
    """Let a folder of a store, on the way to a file, be a link."""
    parts = name.split("/")
    store = next(number for number, part in enumerate(parts, 1) if part.endswith(".zarr"))
    folder = "/".join(parts[: rng.randrange(store, len(parts))])
    for inside in [one for one in tree if one.startswith(f"{folder}/")]:
        del tree[inside]
    tree[folder] = LINK + rng.choice(FOLDER_LINKS)


def mutate_file(data: bytes, rng: random.Random) -> bytes:
    """Change a file as what it is: JSON by its values, TIFF by its tags, text by its words, or else by its bytes."""
    way = rng.random()
    if data[:1] in (b"{", b"[") and way < 0.85:
        return mutate_json(data, rng)
    if data[:2] in (b"II", b"MM") and way < 0.6:
        return mutate_tiff(data, rng)
    if way < 0.3 and b"<" in data:
        return mutate_attributes(data, rng)
    if data.isascii() and way < 0.7:
        return mutate_text(data, rng)
    return mutate_bytes(data, rng)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    if not out:
        return rng.randbytes(rng.randrange(1, 64))
    # Headers are near the start: half of the changes fall into the first 200 bytes.
    at = rng.randrange(min(len(out), 200) if rng.random() < 0.5 else len(out))
    kind = rng.randrange(7)
    if kind == 0:
        out[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        out[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    elif kind == 2:
        code = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
        number = struct.pack(code, rng.choice(NUMBERS) % 2 ** (8 * struct.calcsize(code)))
        out[at : at + len(number)] = number
    elif kind == 3:
        del out[at : at + rng.choice((1, 2, 4, 16, 256))]
    elif kind == 4:
        out[at:at] = rng.choice((rng.randbytes(4), bytes(16), out[at : at + 64], rng.choice(TEXTS)))
    elif kind == 5:
        del out[at:]
    else:
        start = rng.randrange(len(out))
        out[at : at + 32] = out[start : start + 32]
    return bytes(out)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Change, double or drop a piece between separators."""
    separator = rng.choice((b"\n", b"\t", b" ", b":", b",", b'"'))
    pieces = data.split(separator)
    at = rng.randrange(len(pieces))
    kind = rng.randrange(4)
    if kind == 0:
        pieces[at] = rng.choice(TEXTS)
    elif kind == 1:
        pieces[at] = pieces[at] + rng.choice(TEXTS)
    elif kind == 2:
        pieces[at:at] = [pieces[at]] * rng.choice((1, 2, 50))
    else:
        del pieces[at]
    return separator.join(pieces)


def mutate_attributes(data: bytes, rng: random.Random) -> bytes:
    """Change the value of an XML attribute inside any file, keeping the length of the file."""
    quotes = [i for i, letter in enumerate(data) if letter == ord('"')]
    if len(quotes) < 2:
        return mutate_bytes(data, rng)
    pick = rng.randrange(len(quotes) - 1)
    start, stop = quotes[pick] + 1, quotes[pick + 1]
    value = rng.choice((*TEXTS, *(str(number).encode() for number in NUMBERS)))[: max(0, stop - start)]
    return data[:start] + value.ljust(stop - start) + data[stop:]


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Replace, drop, double or nest one value."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, rng)
    places = list(_places(value))
    if not places:
        return json.dumps(rng.choice(ODD_VALUES)).encode()
    parent, key = rng.choice(places)
    kind = rng.random()
    if kind < 0.6:
        parent[key] = rng.choice(ODD_VALUES)
    elif kind < 0.7:
        del parent[key]
    elif kind < 0.8 and isinstance(parent[key], int | float):
        parent[key] = parent[key] * rng.choice((-1, 2, 10, 1000, 10**6, 10**12)) + rng.choice((-1, 0, 1))
    elif kind < 0.9:
        other, name = rng.choice(places)
        parent[key] = json.loads(json.dumps(other[name])) if _has(other, name) else None
    elif isinstance(parent[key], list):
        parent[key] = parent[key] * rng.choice((2, 3, 100))
    else:
        nested: Any = parent[key]
        for _ in range(rng.choice((1, 3, 900))):
            nested = [nested]
        parent[key] = nested
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):
        return b"[" * 100_000


def _has(parent: Any, key: Any) -> bool:
    return key in parent if isinstance(parent, dict) else isinstance(key, int) and key < len(parent)


def _places(value: Any) -> Any:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def mutate_tiff(data: bytes, rng: random.Random) -> bytes:
    """Change one tag of one page: its code, type, count or value; or a link between pages."""
    tags = list(tiff_tags(data))
    if not tags:
        return mutate_bytes(data, rng)
    out, order = bytearray(data), "<" if data[:2] == b"II" else ">"
    at, form = rng.choice(tags)
    code, kind, count, value = struct.unpack_from(order + form, out, at)
    limit = 2 ** (8 * struct.calcsize(order + form[-1]))
    number = rng.choice((*NUMBERS, value + 1, value * 2, len(data), len(data) - 1, rng.randrange(len(data)))) % limit
    change = rng.randrange(6)
    if change < 3:
        value = number
    elif change == 3:
        count = number
    elif change == 4:
        kind = rng.choice((1, 2, 3, 4, 5, 7, 11, 12, 13, 16, 18, 0, 65535))
    else:
        code = rng.choice((254, 256,
                           257, 258, 259, 262, 270, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 330,
                           338, 339, 347, 530, 50838, 50839, 51123, 34665, rng.randrange(65536)))  # fmt: skip
    if change < 2 and kind == 3 and order == "<":
        value = number % 65536
    struct.pack_into(order + form, out, at, code, kind, count, value)
    return bytes(out)


def tiff_tags(data: bytes) -> Any:
    """Yield (offset, struct form) of every entry of every page."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        big = struct.unpack_from(order + "H", data, 2)[0] == 43
        link, tags, form = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
        offset, seen = struct.unpack_from(order + link, data, 8 if big else 4)[0], set()
        while offset and offset not in seen and len(seen) < 64:
            seen.add(offset)
            count = struct.unpack_from(order + tags, data, offset)[0]
            start, size = offset + struct.calcsize(order + tags), struct.calcsize(order + form)
            for i in range(min(count, 200)):
                struct.unpack_from(order + form, data, start + i * size)
                yield start + i * size, form
            offset = struct.unpack_from(order + link, data, start + count * size)[0]
    except (struct.error, OverflowError):
        return
