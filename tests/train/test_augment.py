import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.interpolate import CubicHermiteSpline

from unet_pipeline.config.sections import Augment
from unet_pipeline.train import augment

OFF = Augment(0.0, 3, 256, False, False, 0.0, 0.0, 0.0, 0.0)


def draw(seed=0, shape=(60, 60), channels=1, **changes):
    options = dataclasses.replace(OFF, **changes)
    return augment.draw(options, np.random.default_rng(seed), channels, shape)


def offsets(transform, shape):
    return augment.coordinates(transform, shape).numpy()


def grid(shape):
    return np.stack(np.meshgrid(*(np.arange(size) - (size - 1) / 2 for size in shape), indexing="ij"))


# positions


def test_without_augmentation_pixels_are_read_as_they_are():
    for shape in ((5, 8), (60, 61)):
        np.testing.assert_array_equal(offsets(draw(shape=shape), shape), grid(shape))


def test_the_same_generator_gives_the_same_transform_and_another_another():
    one, again, other = (augment.draw(Augment(), np.random.default_rng(seed), 2, (60, 60)) for seed in (1, 1, 2))
    for name in ("matrix", "displacement", "contrast", "brightness"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    assert one.noise == again.noise != other.noise


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_rotation_and_mirroring_keep_distances(seed):
    moved = offsets(draw(seed, (21, 21), rotate="any", flip=True), (21, 21))
    np.testing.assert_allclose(np.hypot(*moved), np.hypot(*grid((21, 21))), atol=1e-4)


def test_rotations_are_even_and_mirror_images_half():
    matrices = [draw(seed, rotate="any", flip=True).matrix for seed in range(400)]
    assert 150 < sum(np.linalg.det(matrix) < 0 for matrix in matrices) < 250
    angles = np.array([np.arctan2(*matrix[:, 0]) for matrix in matrices])
    assert np.histogram(angles, 4, (-np.pi, np.pi))[0].min() > 60


def test_flips_alone_mirror_each_axis_half_of_the_time():
    signs = np.array([np.diag(draw(seed, flip=True).matrix) for seed in range(200)])
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert (np.abs(signs.mean(axis=0)) < 0.25).all()


def test_scale_changes_the_size_of_objects_by_its_factor_at_most():
    sizes = [1 / np.abs(np.linalg.det(draw(seed, scale=0.3).matrix)) ** 0.5 for seed in range(200)]
    assert 0.7 <= min(sizes) < 0.75
    assert 1.25 < max(sizes) <= 1.3


# elastic deformation


def catmull_rom(values, spacing, at):
    """The oracle: a cubic Hermite spline with central differences, of points repeated at the edge."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    knots = (np.arange(len(values)) - (len(values) - 1) / 2) * spacing
    return CubicHermiteSpline(knots, values, (padded[2:] - padded[:-2]) / (2 * spacing))(at)


@pytest.mark.parametrize(("size", "points", "spacing"), [(60, 3, 128.0), (129, 5, 32.0), (257, 3, 128.0), (41, 9, 5.0)])
def test_cubic_interpolation_is_catmull_roms(size, points, spacing):
    values = np.random.default_rng(0).normal(size=points)
    at = np.arange(size) - (size - 1) / 2
    np.testing.assert_allclose(
        augment.cubic_weights(size, points, spacing) @ values, catmull_rom(values, spacing, at), atol=1e-9
    )


def test_displacements_are_bicubic_between_the_grid_points():
    shape = (33, 50)
    transform = draw(3, shape, elastic_std_px=10.0, elastic_span_px=64)
    expected = np.empty((2, *shape))
    for axis, points in enumerate(transform.displacement):
        across = np.stack([catmull_rom(row, 32.0, grid(shape)[1][0]) for row in points])
        expected[axis] = np.stack([catmull_rom(column, 32.0, grid(shape)[0][:, 0]) for column in across.T], axis=1)
    np.testing.assert_allclose(offsets(transform, shape) - grid(shape), expected, atol=1e-4)


def test_displacements_at_the_grid_points_have_the_given_standard_deviation():
    at_points = [
        (offsets(draw(seed, (65, 65), elastic_std_px=10.0, elastic_span_px=64), (65, 65)) - grid((65, 65)))[
            :, ::32, ::32
        ]
        for seed in range(120)
    ]
    assert np.abs(np.std(at_points) - 10) < 0.5
    assert np.abs(np.mean(at_points)) < 1


def test_larger_tiles_get_more_grid_points_at_the_same_spacing():
    for size, points in ((100, 3), (257, 3), (258, 5), (572, 7)):
        transform = draw(shape=(size, 100), elastic_std_px=10.0)
        assert transform.spacing_px == 128
        assert transform.displacement.shape == (2, points, 3)
        assert (points - 1) * 128 >= size - 1


# mirroring


@settings(max_examples=50)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 40))
def test_mirroring_equals_numpys_reflection_at_any_distance(height, width, margin):
    image = np.arange(height * width, dtype=np.float32).reshape(height, width)
    positions = np.stack(
        np.meshgrid(*(np.arange(-margin, size + margin, dtype=np.float64) for size in image.shape), indexing="ij")
    )
    rows, columns = augment.mirror(torch.from_numpy(positions), image.shape).numpy().astype(int)
    np.testing.assert_array_equal(image[rows, columns], np.pad(image, margin, mode="reflect"))


def test_mirroring_is_continuous_between_pixels():
    positions = torch.tensor([[[-0.25, 3.25, 6.75]], [[0.0, 0.0, 0.0]]], dtype=torch.float64)
    np.testing.assert_allclose(augment.mirror(positions, (4, 1))[0], [[0.25, 2.75, 0.75]])


def test_the_box_holds_all_pixels_that_interpolation_needs():
    positions = torch.tensor([[[2.0, 4.5]], [[7.25, 7.5]]])
    assert augment.box(positions) == (slice(2, 6), slice(7, 9))
    assert augment.box(positions.round()) == (slice(2, 5), slice(7, 9))


# reading at positions


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 30), st.integers(1, 30)))
def test_warping_is_scipys_map_coordinates(seed, size):
    generator = np.random.default_rng(seed)
    image = generator.normal(size=(2, *size)).astype(np.float32)
    positions = generator.uniform(-60, 60, (2, 7, 9)).astype(np.float32)
    folded = augment.mirror(torch.from_numpy(positions), size)
    warped = augment.warp_image(torch.from_numpy(image), folded).numpy()
    # scipy needs two pixels an axis to mirror
    wide = np.pad(image, ((0, 0), *((0, 2) if one == 1 else (0, 0) for one in size)), mode="reflect")
    expected = [ndimage.map_coordinates(channel, positions, order=1, mode="mirror") for channel in wide]
    np.testing.assert_allclose(warped, expected, atol=2e-4)


def test_labels_take_the_nearest_value():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 256, (30, 20)).astype(np.uint8)
    positions = np.stack([generator.uniform(0, 29, (40, 40)), generator.uniform(0, 19, (40, 40))]).astype(np.float32)
    warped = augment.warp_nearest(torch.from_numpy(labels), torch.from_numpy(positions)).numpy()
    np.testing.assert_array_equal(warped, ndimage.map_coordinates(labels, positions, order=0))
    assert warped.dtype == np.uint8


def test_a_quarter_turn_is_exact():
    image = torch.rand(1, 12, 12)
    transform = dataclasses.replace(draw(shape=(12, 12)), matrix=np.array([[0.0, 1.0], [-1.0, 0.0]]))
    positions = augment.coordinates(transform, (12, 12)) + 5.5
    turned = augment.warp_image(image, positions)
    torch.testing.assert_close(turned, torch.rot90(image, 1, (1, 2)), atol=1e-5, rtol=0)


# grey values


def test_contrast_brightness_and_noise():
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 100, 100)).astype(np.float32))
    transform = dataclasses.replace(
        draw(channels=2), contrast=np.array([1.2, 0.8]), brightness=np.array([0.1, -0.3]), noise=0.05
    )
    changed = augment.grey(image, transform, np.random.default_rng(1))
    rest = changed - (image * torch.tensor([1.2, 0.8])[:, None, None] + torch.tensor([0.1, -0.3])[:, None, None])
    assert abs(rest.std().item() - 0.05) < 0.001
    assert abs(rest.mean().item()) < 0.001
    assert changed.dtype == torch.float32


def test_grey_values_stay_as_they_are_when_turned_off():
    image = torch.rand(1, 8, 8)
    assert torch.equal(augment.grey(image, draw(), np.random.default_rng(0)), image)


def test_grey_changes_stay_in_their_range():
    drawn = [draw(seed, channels=3, contrast=0.2, brightness=0.1, noise=0.03) for seed in range(200)]
    contrast, brightness = (np.array([getattr(one, name) for one in drawn]) for name in ("contrast", "brightness"))
    assert 0.8 <= contrast.min() < 0.81
    assert 1.19 < contrast.max() <= 1.2
    assert -0.1 <= brightness.min() < -0.09
    assert 0.09 < brightness.max() <= 0.1
    assert 0 <= min(one.noise for one in drawn) < max(one.noise for one in drawn) <= 0.03
    assert not np.allclose(contrast[:, 0], contrast[:, 1])


def test_quarter_turns_keep_pixels_as_they_are():
    image = torch.arange(2 * 9 * 9, dtype=torch.float32).reshape(2, 9, 9)
    found = set()
    for seed in range(40):
        positions = augment.coordinates(draw(seed, (9, 9), rotate="quarter", flip=True), (9, 9)) + 4
        warped = augment.warp_image(image, positions)
        same = [torch.equal(warped, each) for each in dihedral(image)]
        assert sum(same) == 1
        found.add(same.index(True))
    assert found == set(range(8))


def dihedral(image):
    """The eight ways to lay a square picture (channels, y, x)."""
    for part in (image, image.flip(-1)):
        yield from (torch.rot90(part, turns, (-2, -1)) for turns in range(4))
