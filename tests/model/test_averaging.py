"""Mirroring and ensembles against numpy: flips of a whole pass, means of the softmax of single networks."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from chain import make_model, make_plan, make_stack, run, settings
from scipy.special import expit, softmax
from torch import nn

from unet_pipeline.audit.prove import difference, prove, tiled_pass, whole_pass
from unet_pipeline.config.sections import Predict
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.averaging import (
    MIRRORINGS,
    Ensemble,
    check_mirror,
    log_mean,
    mirrored_mean,
    turned,
    turned_back,
)
from unet_pipeline.model.card import Architecture
from unet_pipeline.model.geometry import ALONE, Geometry, unpadded
from unet_pipeline.model.normalise import Normaliser
from unet_pipeline.objects.box import Box
from unet_pipeline.predict.crop import Crop
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.plan import Plan, plan

COUNTS = {"none": 1, "flips": 4, "all": 8}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return make_stack(folder), make_model(folder / "model")


def ways(mirror):
    """Pairs of numpy functions, a mirroring of (..., y, x) and the way back, by another route than the package's."""
    turns = [
        (lambda v, k=k, f=f: np.rot90(v[..., ::-1] if f else v, k, axes=(-2, -1)),
         lambda v, k=k, f=f: (np.rot90(v, -k, axes=(-2, -1))[..., ::-1] if f else np.rot90(v, -k, axes=(-2, -1))))
        for k in range(4) for f in (False, True)
    ]  # fmt: skip
    flips = [turns[0], turns[1], turns[4], turns[5]]  # as it is, columns, both, rows
    return {"none": turns[:1], "flips": flips, "all": turns}[mirror]


def oracle(network, window, mirror):
    """Mean over flips and quarter turns of the softmax, in numpy: window (channels, y, x) -> (classes, y, x)."""
    shares = []
    for there, back in ways(mirror):
        with torch.inference_mode():
            logits = network(torch.from_numpy(there(window).copy())[None])[0].numpy()
        shares.append(back(softmax(logits.astype(np.float64), axis=0)))
    return np.mean(shares, axis=0)


@pytest.mark.parametrize("mirror", ["none", "flips", "all"])
def test_mirroring_is_the_mean_over_numpys_flips(made, mirror):
    stack, model = made
    forward = Forward.load(model, stack, Predict(mirror=mirror), settings().compute)
    size = [forward.card.geometry.read_px(keep) for keep in (32, 48)]
    window = np.random.default_rng(0).normal(size=(1, *size)).astype(np.float32)
    assert window.shape[1] != window.shape[2]
    logits = forward([torch.from_numpy(window[:, None])])[0, :, 0].numpy()
    assert logits.dtype == np.float32
    network = Forward.load(model, stack, Predict(), settings().compute).network
    np.testing.assert_allclose(softmax(logits, axis=0), oracle(network, window, mirror), atol=2e-6)


def test_each_mirroring_counts(made):
    """A mean over fewer mirrorings, or over one of them twice, would be another."""
    stack, model = made
    image = Crop(stack.image, Box.of(0, slice(0, 100), slice(0, 130)))
    passes = {
        mirror: whole_pass(image, Forward.load(model, stack, Predict(mirror=mirror), settings().compute))
        for mirror in MIRRORINGS
    }
    for one, other in pairwise(passes.values()):
        assert difference(one, other).largest_difference_std > 0.01
    assert {name: len(set(each)) for name, each in MIRRORINGS.items()} == COUNTS


@pytest.mark.parametrize("mirror", ["flips", "all"])
def test_a_turn_is_undone(mirror):
    values = torch.arange(24).reshape(1, 4, 6)
    images = [turned(values, way) for way in MIRRORINGS[mirror]]
    for image, way in zip(images, MIRRORINGS[mirror], strict=True):
        assert torch.equal(turned_back(image, way), values)
    assert len({(image.shape, tuple(image.flatten().tolist())) for image in images}) == COUNTS[mirror]


@pytest.mark.parametrize("mirror", ["flips", pytest.param("all", marks=pytest.mark.slow)])
def test_tilings_equal_one_whole_pass(made, mirror):
    stack, model = made
    found = prove(model, stack, settings(predict={"mirror": mirror}), None, plane=1, crop_px=70)
    assert found.seamless
    assert all(row.largest_difference_std < 1e-4 and row.flipped_labels == 0 for row in found.rows)


@pytest.mark.parametrize("mirror", ["flips", "all"])
def test_a_step_off_the_stride_is_caught(made, mirror):
    stack, model = made
    forward = Forward.load(model, stack, Predict(mirror=mirror), settings().compute)
    crop, true = Crop(stack.image, Box.of(0, slice(0, 100), slice(0, 130))), forward.card.geometry
    lying = Geometry(2, true.before, true.after + 2, true.lost)
    shifted = tiled_pass(crop, Plan((1, 100, 130), lying, (38, 38), (38, 38), 1), forward)
    assert difference(shifted, whole_pass(crop, forward)).largest_difference_std > 0.01


class Padded(nn.Module):
    """A padded network of stride 4 that is neither symmetric nor blind to its border."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.first, self.inner = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.down, self.up = nn.MaxPool2d(4), nn.ConvTranspose2d(4, 4, 4, stride=4)
        self.head = nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, image):
        skip = torch.relu(self.first(image))
        return self.head(torch.cat([skip, self.up(torch.relu(self.inner(self.down(skip))))], dim=1))


class Card:
    classes = ("background", "cell")
    activation = "softmax"
    architecture = Architecture()
    geometry_z = ALONE

    def __init__(self, geometry):
        self.geometry = geometry


@pytest.mark.parametrize("mirror", ["none", pytest.param("flips", marks=pytest.mark.slow), "all"])
@pytest.mark.parametrize(("crop", "seamless"), [(12, True), (4, False)])
def test_padded_networks_are_seamless_where_the_margin_reaches(made, mirror, crop, seamless):
    """The network sees 1 + 4 + 3 + 1 px at most: a margin of 12 px is enough in every mirroring, 4 px are not."""
    geometry = Geometry(4, crop, crop, 0, crop)
    normaliser = Normaliser((0.0,), (1 / 255,))
    forward = Forward(Padded().eval(), Card(geometry), normaliser, torch.device("cpu"), "float32", mirror=mirror)
    check_mirror(geometry, mirror)
    image = Crop(made[0].image, Box.of(0, slice(0, 70), slice(0, 101)))
    whole = whole_pass(image, forward)
    differences = []
    for tile_px, shard in ((12, (36, 36)), (32, (72, 104)), (72, (72, 104))):
        tiled = tiled_pass(image, plan((1, 70, 101), geometry, tile_px, shard, 2), forward)
        differences.append(difference(tiled, whole).largest_difference_std)
    assert (max(differences) < 1e-4) == seamless


def test_networks_that_lose_more_on_one_side_are_refused():
    for depth in range(1, 6):
        check_mirror(unpadded(depth), "all")
    lopsided = Geometry(4, 10, 12, 18, 0)
    check_mirror(lopsided, "none")
    with pytest.raises(PipelineError, match=r"predict\.mirror"):
        check_mirror(lopsided, "flips")


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_log_mean_is_the_mean_of_probabilities(activation):
    answers = [torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(seed)) * 9 for seed in range(4)]
    shares = {"softmax": lambda v: softmax(v.double().numpy(), axis=1), "sigmoid": lambda v: expit(v.double().numpy())}
    got = log_mean(iter(answers), activation)
    assert got.dtype == torch.float32
    expected = np.mean([shares[activation](answer) for answer in answers], axis=0)
    np.testing.assert_allclose(shares[activation](got), expected, atol=1e-6)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_certain_answers_stay_finite(activation):
    sure = torch.tensor([2000.0, -2000.0])[None, :, None, None]
    got = log_mean([sure, sure], activation)
    assert torch.isfinite(got).all()
    assert got[0, 0] > got[0, 1] + 600


def test_the_log_mean_does_not_depend_on_where_a_tile_ends():
    """In float32 this fails: vectorised exponentials differ from those of the last few pixels of a row."""
    answers = [torch.randn(1, 2, 201, 177, generator=torch.Generator().manual_seed(seed)) * 5 for seed in range(2)]
    whole = log_mean(answers)
    generator = np.random.default_rng(0)
    for _ in range(60):
        (y, x), (height, width) = generator.integers(0, 120, 2), generator.integers(1, 57, 2)
        place = (..., slice(y, y + height), slice(x, x + width))
        assert torch.equal(log_mean([answer[place].contiguous() for answer in answers]), whole[place])


def test_one_mirroring_is_in_memory_at_a_time():
    held = []

    def network(batch):
        held.append(batch.shape)
        return batch.mean(dim=1, keepdim=True).repeat(1, 2, 1, 1)

    mirrored_mean(network, torch.zeros(3, 1, 8, 12), "all")
    assert held == [(3, 1, 8, 12)] * 4 + [(3, 1, 12, 8)] * 4


def test_an_ensemble_is_the_mean_of_its_members(made):
    stack, model = made
    networks = [Forward.load(model, stack, Predict(), settings().compute).network]
    networks += [nn.Sequential(networks[0], nn.Conv2d(2, 2, 1).requires_grad_(False))]
    size = networks[0].geometry.read_px(16)
    window = torch.randn(1, 1, size, size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = np.mean([softmax(network(window).double().numpy(), axis=1) for network in networks], axis=0)
        got = Ensemble(networks)(window)
    np.testing.assert_allclose(softmax(got.numpy(), axis=1), expected, atol=1e-6)


@pytest.mark.slow
def test_the_volume_is_the_mirrored_whole_pass(made):
    stack, model = made
    config = settings(predict={"mirror": "flips", "batch": 2, "probabilities": "float16"})
    stack_plan = make_plan(stack, config, 2)
    assert run(stack_plan, model, config).exists()
    stored = stack_plan.probabilities().read(1, slice(0, 100), slice(0, 130))
    forward = Forward.load(model, stack, Predict(mirror="flips"), config.compute)
    logits = whole_pass(Crop(stack.image, Box.of(1, slice(0, 100), slice(0, 130))), forward)[:, 0]
    np.testing.assert_allclose(stored, softmax(logits, axis=0), atol=1e-3)
    unturned = Forward.load(model, stack, Predict(), config.compute)
    plain = whole_pass(Crop(stack.image, Box.of(1, slice(0, 100), slice(0, 130))), unturned)[:, 0]
    assert np.abs(stored - softmax(plain, axis=0)).max() > 0.01
