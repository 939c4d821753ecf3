"""Pictures of different sizes: held against Pillow, NumPy and SciPy pixel by pixel; labels are never interpolated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from reading import calm, noise

from unet_pipeline.config.sections import Ingest
from unet_pipeline.errors import PipelineError
from unet_pipeline.images.open import open_planes
from unet_pipeline.objects.box import Box
from unet_pipeline.stacks import sizes
from unet_pipeline.stacks.sizes import Fitted, nearest, smooth

SIZES = [(20, 31), (40, 10), (17, 17), (40, 31)]
PAD, SQUARE = Ingest(sizes="pad", grey=77.0), Ingest(sizes="square", square_px=32, grey=77.0)


def pictures(folder: Path, dtype: str = "u1", channels: int = 1) -> list[np.ndarray]:
    """Write a picture of each size; return them as (channels, height, width)."""
    folder.mkdir(exist_ok=True)
    made = [noise((*size, channels), dtype, seed) for seed, size in enumerate(SIZES)]
    for number, pixels in enumerate(made):
        Image.fromarray(pixels.squeeze()).save(folder / f"{number}.png")
    return [np.moveaxis(pixels, -1, 0) for pixels in made]


def fitted(folder: Path, options: Ingest, labels: bool = False) -> Fitted:
    return Fitted(open_planes(str(folder), mixed=True), options, labels)


def whole(planes: Fitted, plane: int) -> Any:
    return planes.read(plane, slice(0, planes.shape[2]), slice(0, planes.shape[3]))


def test_different_sizes_stay_an_error_unless_asked_for(tmp_path: Path) -> None:
    pictures(tmp_path / "a")
    with pytest.raises(PipelineError, match=r"1\.png.*20 × 31.*\n?.*ingest\.sizes: pad or square") as caught:
        open_planes(str(tmp_path / "a"))
    assert "40 × 10" in caught.value.got


@pytest.mark.parametrize("fill", ["grey", "mirror"])
@pytest.mark.parametrize(("dtype", "channels"), [("u1", 1), ("u1", 3), ("u2", 1)])
def test_padding_is_that_of_numpy(tmp_path: Path, fill: Any, dtype: str, channels: int) -> None:
    made = pictures(tmp_path / "a", dtype, channels)
    planes = fitted(tmp_path / "a", replace(PAD, fill=fill))
    assert planes.shape == (4, channels, 40, 31)
    for plane, pixels in enumerate(made):
        top, left = (40 - pixels.shape[1]) // 2, (31 - pixels.shape[2]) // 2
        around = ((0, 0), (top, 40 - pixels.shape[1] - top), (left, 31 - pixels.shape[2] - left))
        how: Any = {"mode": "constant", "constant_values": 77} if fill == "grey" else {"mode": "reflect"}
        expected = np.pad(pixels, around, **how)
        np.testing.assert_array_equal(whole(planes, plane), expected)
        rng = np.random.default_rng(plane)
        for _ in range(20):
            rows, columns = (slice(*sorted(rng.integers(0, n + 1, 2).tolist())) for n in (40, 31))
            if rows.stop > rows.start and columns.stop > columns.start:
                np.testing.assert_array_equal(planes.read(plane, rows, columns), expected[:, rows, columns])


@pytest.mark.parametrize("channels", [1, 3])
def test_resizing_is_that_of_pillow(tmp_path: Path, channels: int) -> None:
    made = pictures(tmp_path / "a", channels=channels)
    planes = fitted(tmp_path / "a", SQUARE)
    assert planes.shape == (4, channels, 32, 32)
    for plane, pixels in enumerate(made):
        longest = max(pixels.shape[1:])
        height, width = (round(side * 32 / longest) for side in pixels.shape[1:])
        picture = Image.fromarray(np.moveaxis(pixels, 0, -1).squeeze())
        expected = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)).reshape(height, width, -1)
        found = whole(planes, plane)
        place = planes.content(plane)
        assert (place.height, place.width) == (height, width)
        assert (place.top, place.left) == ((32 - height) // 2, (32 - width) // 2)
        rows, columns = place.window_in(Box.of(plane, slice(0, 32), slice(0, 32)))
        inside = found[:, rows, columns].astype(int)
        assert np.abs(inside - np.moveaxis(expected, -1, 0)).max() <= 1  # Pillow rounds 8 bit between its two passes
        outside = np.ones((32, 32), bool)
        outside[rows, columns] = False
        assert (found[:, outside] == 77).all()


def test_shrinking_takes_the_mean_of_what_a_pixel_covers() -> None:
    """Every second pixel of a fine chequered pattern would be all white or all black."""
    fine = (np.indices((64, 64)).sum(0) % 2 * 200).astype(np.uint8)[None]
    inner = smooth(fine, (16, 16))[:, 1:-1, 1:-1]
    assert np.abs(inner.astype(int) - 100).max() <= 2


@calm
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(1, 60))
def test_nearest_takes_the_pixel_below_the_centre(height: int, width: int, rows: int, columns: int) -> None:
    values = np.arange(height * width).reshape(1, height, width)
    found = nearest(values, (rows, columns))
    y, x = ((np.arange(n) + 0.5) * there / n for n, there in ((rows, height), (columns, width)))
    centres = np.stack(np.meshgrid(np.arange(height) + 0.5, np.arange(width) + 0.5, indexing="ij"))
    if height * width <= 400:  # brute force: no other pixel is nearer
        far = np.abs(centres[:, :, :, None, None] - np.stack(np.meshgrid(y, x, indexing="ij"))[:, None, None]).max(0)
        taken = far.reshape(-1, rows, columns)
        assert (np.take_along_axis(taken, found, 0)[0] <= taken.min(0) + 1e-9).all()
    assert found.shape == (1, rows, columns)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_labels_are_never_interpolated(tmp_path: Path, dtype: str) -> None:
    """As Pillow's nearest, value for value; with any mean between 0 and 15 or 200 this fails."""
    (tmp_path / "a").mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        values = np.kron(rng.choice([0, 15, 200], (8, 8)), np.ones((5, 5)))[: size[0], : size[1]].astype(dtype)
        values = np.pad(values, [(0, max(0, n - m)) for n, m in zip(size, values.shape, strict=True)])
        Image.fromarray(values).save(tmp_path / f"a/{number}.png")
    planes = fitted(tmp_path / "a", SQUARE, labels=True)
    for plane in range(4):
        place = planes.content(plane)
        with Image.open(tmp_path / f"a/{plane}.png") as picture:
            grey = Image.fromarray(np.asarray(picture).astype(np.uint8))
        expected = np.asarray(grey.resize((place.width, place.height), Image.Resampling.NEAREST))
        rows, columns = place.window_in(Box.of(plane, slice(0, 32), slice(0, 32)))
        found = whole(planes, plane)[0, rows, columns]
        assert set(np.unique(found)) <= {0, 15, 200}
        np.testing.assert_array_equal(found, expected)


def test_what_fits_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    pixels = noise((32, 32), "u2")
    Image.fromarray(pixels).save(tmp_path / "a/0.png")
    for options in (Ingest(), PAD, SQUARE):
        planes = fitted(tmp_path / "a", options)
        assert planes.untouched
        assert planes.record() is None
        assert planes.pixel_um((0.5, 0.5)) == (0.5, 0.5)
        np.testing.assert_array_equal(whole(planes, 0)[0], pixels)


def test_the_record_says_what_was_done(tmp_path: Path) -> None:
    pictures(tmp_path / "a")
    record = fitted(tmp_path / "a", SQUARE).record()
    assert record is not None
    assert record["pictures"][1] == {"name": "1.png", "size": [40, 10], "scale": 0.8, "place": [0, 12, 32, 8]}
    record = fitted(tmp_path / "a", PAD).record()
    assert record is not None
    assert record["pictures"][2] == {"name": "2.png", "size": [17, 17], "scale": 1.0, "place": [11, 7, 17, 17]}


def test_the_size_of_a_pixel_follows(tmp_path: Path) -> None:
    pictures(tmp_path / "a")
    assert fitted(tmp_path / "a", PAD).pixel_um((0.5, 0.4)) == (0.5, 0.4)
    assert fitted(tmp_path / "a", SQUARE).pixel_um((0.5, 0.4)) is None
    alike = Fitted(open_planes(str(tmp_path / "a"), mixed=True, planes="1,3"), SQUARE)
    assert alike.pixel_um((0.5, 0.4)) == (0.625, 0.5)


def test_a_grey_value_that_the_image_cannot_hold(tmp_path: Path) -> None:
    pictures(tmp_path / "a")
    for grey, near in ((300.0, 255), (0.5, 0)):
        with pytest.raises(PipelineError, match=r"ingest\.grey") as caught:
            fitted(tmp_path / "a", replace(PAD, grey=grey))
        assert caught.value.nearest == near
    fitted(tmp_path / "a", replace(PAD, grey=300.0), labels=True)


def test_a_picture_too_large_to_be_held_whole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures(tmp_path / "a")
    monkeypatch.setattr(sizes, "LARGEST_PX", 1000)
    with pytest.raises(PipelineError, match=r"3\.png: expected an image of at most 1000 px, got 40 × 31"):
        fitted(tmp_path / "a", SQUARE)
    fitted(tmp_path / "a", PAD)


def test_planes_of_hardly_anything_but_padding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number, size in enumerate(((1, 400), (400, 1))):
        Image.fromarray(noise(size)).save(tmp_path / f"a/{number}.png")
    with pytest.raises(PipelineError, match=r"at least 2 %, got 0\.25 % of planes of 400 × 400"):
        fitted(tmp_path / "a", PAD)
    assert fitted(tmp_path / "a", SQUARE).shape == (2, 1, 32, 32)


def test_a_picture_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    pictures(tmp_path / "a")
    planes = fitted(tmp_path / "a", PAD)
    Image.fromarray(noise((20, 30))).save(tmp_path / "a/0.png")
    with pytest.raises(PipelineError, match=r"0\.png.*as when it was opened"):
        whole(planes, 0)
