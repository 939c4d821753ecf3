"""Networks of volumes: Çiçek et al. 2016, and levels that leave z alone."""

import math
from dataclasses import replace

import pytest
import torch

from unet_pipeline.config.checks import from_dict
from unet_pipeline.config.network_section import Model
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import Architecture, ModelCard, architecture, geometry, geometry_z, parse_card, sizes
from unet_pipeline.model.models import build, initialise
from unet_pipeline.model.voxels import Voxel, automatic_z_levels

CICEK = Model(depth=3, base_channels=64, batch_norm=False, dimensions=3, z_levels=4, widen="before")
SMALL = Architecture(depth=2, base_channels=4, dropout=0, dimensions=3, z_levels=3)


def test_the_published_network():
    """Figure 2: 132 x 132 x 116 voxels give 44 x 44 x 28, and section 2: 19,069,955 parameters.

    The paper's number counts a bias for each convolution and none for the up-convolutions, which have some here.
    """
    network = build(architecture(CICEK, channels=3, classes=3))
    up = sum(one.bias.numel() for one in network.up)
    assert sum(one.numel() for one in network.parameters()) - up == 19_069_955
    assert [one.output_px(132) for one in network.sizes] == [44] * 3
    assert network.sizes[0].output_px(116) == 28
    widths = [[one.out_channels for one in level if hasattr(one, "out_channels")] for level in network.contracting]
    assert widths == [[32, 64], [64, 128], [128, 256], [256, 512]]


@pytest.mark.parametrize("change", [
    {}, {"z_levels": 1}, {"z_levels": 2}, {"padded": True}, {"padded": True, "z_levels": 2, "down": "stride"},
    {"stem": "half"}, {"stem": "half", "z_levels": 2, "padded": True}, {"residual": True, "batch_norm": True},
    {"widen": "before", "up_relu": True},
])  # fmt: skip
def test_what_a_voxel_sees(change):
    """The geometry is held against gradients: what reaches the kept middle, and no farther, along each axis."""
    given = replace(SMALL, **change)
    network, axes = build(given).eval(), sizes(given)
    torch.manual_seed(0)
    for one in network.modules():  # every weight counts, whatever ReLU would stop
        if isinstance(one, torch.nn.ReLU):
            one.forward = lambda values: values
    keep = [one.stride for one in axes]
    image = torch.rand(1, 1, *(one.read_px(size) for one, size in zip(axes, keep, strict=True)), requires_grad=True)
    scores = network(image)
    assert scores.shape[2:] == tuple(one.output_px(size) for one, size in zip(axes, image.shape[2:], strict=True))
    kept = scores[0, 0, *(slice(one.crop_px, one.crop_px + size) for one, size in zip(axes, keep, strict=True))]
    kept.sum().backward()
    for axis, (one, size) in enumerate(zip(axes, keep, strict=True)):
        seen = image.grad[0, 0].abs().amax(dim=[other for other in range(3) if other != axis]).nonzero()[:, 0]
        assert seen.min() >= 0
        assert seen.max() < one.before + size + (one.after if given.padded else one.lost // 2)
        if not given.padded:
            assert (seen.min(), seen.max()) == (0, 2 * (one.lost // 2) + size - 1), "all of the margin is needed"


def test_z_that_no_level_but_the_bottom_sees():
    given = replace(SMALL, z_levels=1)
    assert geometry(given) == geometry(Architecture(depth=2))
    assert (geometry_z(given).stride, geometry_z(given).lost) == (1, 4), "two convolutions, no pooling"
    assert geometry_z(Architecture()).read_px(1) == 1, "a network of planes sees one at a time"


def test_weights_start_as_he_et_al_draw_them():
    network = build(replace(SMALL, base_channels=16))
    kernel = network.contracting[2][2].weight
    assert kernel.shape[2:] == (3, 3, 3)
    assert float(kernel.std()) == pytest.approx(math.sqrt(2 / (27 * kernel.shape[1])), rel=0.02)
    up = network.up[0].weight
    assert float(up.std()) == pytest.approx(math.sqrt(2 / up.shape[0]), rel=0.05)
    initialise(network, torch.Generator().manual_seed(0))


def test_wrong_sizes_name_axis_and_nearest():
    network = build(SMALL)
    read = [one.read_px(one.stride) for one in network.sizes]
    with pytest.raises(PipelineError, match="network input, z"):
        network(torch.zeros(1, 1, read[0] + 1, *read[1:]))
    with pytest.raises(PipelineError, match=r"\(n, 1, z, y, x\)"):
        network(torch.zeros(1, 1, *read[1:]))


def test_the_card_of_a_volume_comes_back_and_that_of_planes_says_nothing_of_z():
    for network in (SMALL, Architecture()):
        card = ModelCard(network, ("background", "cell"))
        written = card.to_json()
        assert parse_card(written, "model.json") == card
        assert ("geometry_z" in written) == ("dimensions" in written["architecture"]) == (network is SMALL)
    early = ModelCard(Architecture(depth=1, widen="before"), ("background", "cell"))
    assert parse_card(early.to_json(), "model.json") == early, "planes may widen before, too"
    written = ModelCard(SMALL, ("background", "cell")).to_json()
    with pytest.raises(PipelineError, match="geometry_z"):
        parse_card(written | {"geometry_z": None}, "model.json")


@pytest.mark.parametrize(
    ("ratio", "levels"), [(1, 4), (1.3, 4), (2, 3), (3.9, 2), (5, 2), (12.5, 1), (100, 1), (0.3, 4)]
)
def test_levels_leave_z_alone_as_long_as_voxels_are_longer_along_it(ratio, levels):
    found, why = automatic_z_levels(3, [Voxel("a", 0.4, 0.4 * ratio), Voxel("b", 0.1, 0.1 * ratio)])
    assert found == levels
    assert f"{ratio:.3g} times" in why


def test_voxels_of_unknown_or_of_several_shapes_are_refused():
    with pytest.raises(PipelineError, match=r"(?s)no step.*column step"):
        automatic_z_levels(3, [Voxel("a", 0.4, None)])
    with pytest.raises(PipelineError, match="no pixel_um"):
        automatic_z_levels(3, [Voxel("a", None, 1)])
    with pytest.raises(PipelineError, match=r"1 times.*\(a\), 4 times.*\(b\)"):
        automatic_z_levels(3, [Voxel("a", 1, 1), Voxel("b", 1, 4)])


@pytest.mark.parametrize(("keys", "message"), [
    ({"dimensions": 3, "network": "vgg16"}, "unet with dimensions: 3"),
    ({"dimensions": 3, "up": "bilinear"}, "transposed with dimensions: 3"),
    ({"dimensions": 3, "resize_output": True}, "resize_output"),
    ({"dimensions": 3, "depth": 2, "z_levels": 4}, "3 or less"),
    ({"z_levels": 2}, "auto with dimensions: 2"),
    ({"dimensions": 4}, "2 to 3"),
])  # fmt: skip
def test_options_that_volumes_or_planes_do_not_have(keys, message):
    with pytest.raises(PipelineError, match=message):
        from_dict({"model": keys})
