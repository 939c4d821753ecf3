import numpy as np
import pytest
from chain import draw, make_stack, settings
from scipy import ndimage

from unet_pipeline.errors import PipelineError
from unet_pipeline.images.plane_array import open_array
from unet_pipeline.stacks import weigh as module
from unet_pipeline.stacks.weigh import Gathered, present, weigh


def brute_force(labels, w0, sigma, gap):
    """The paper's formula by one distance transform per object, over the whole plane at once."""
    ids = [one for one in np.unique(labels) if one]
    far = {one: ndimage.distance_transform_edt(labels != one) for one in ids}
    parted = labels.copy()
    for one in ids:
        others = np.min([far[other] for other in ids if other != one], axis=0)
        parted[(labels == one) & (others <= gap)] = 0
    ids = [one for one in ids if (parted == one).any()]
    distances = np.sort([ndimage.distance_transform_edt(parted != one) for one in ids], axis=0)
    term = w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))
    return parted, np.where(parted == 0, term, 0)


def arrays(stack, config, block_px=1024, threads=1):
    weigh(stack, config, stack.record.with_name("weigh.json"), threads, block_px)
    found = [open_array(stack.record.parent / "weights.zarr", name) for name in ("target", "boundary")]
    return [np.stack([array.read_label(plane, slice(None), slice(None)) for plane in range(2)]) for array in found]


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    return make_stack(tmp_path_factory.mktemp("stack"))


@pytest.mark.parametrize(
    "options", [{"sigma": 5.0, "gap_px": 1}, {"sigma": 3.0, "gap_px": 2, "w0": 4.0}, {"sigma": 5.0, "gap_px": 0}]
)
def test_equals_the_definition(stack, options):
    config = settings(weigh=options)
    target, boundary = arrays(stack, config)
    for plane, labels in enumerate(draw()[1]):
        parted, expected = brute_force(labels, config.weigh.w0, config.weigh.sigma, config.weigh.gap_px)
        np.testing.assert_array_equal(target[plane], parted > 0)
        np.testing.assert_allclose(boundary[plane], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("block_px", "threads", "shard_px"), [pytest.param(13, 3, 32, marks=pytest.mark.slow), (32, 1, 128), (61, 2, 32)]
)
def test_bit_equal_for_any_block_shard_and_number_of_threads(stack, block_px, threads, shard_px):
    store = {"chunk_px": shard_px // 2, "shard_px": shard_px}
    divided = arrays(stack, settings(store=store), block_px, threads)
    for found, expected in zip(divided, arrays(stack, settings()), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_auto_follows_the_objects_and_says_so(tmp_path, capsys):
    """Cells that touch, 54 px across, and the same drawn with a gap."""
    ids = np.zeros((2, 80, 190), np.uint16)
    for index, left in enumerate((12, 66, 120)):
        ids[:, 12:66, left : left + 54] = index + 1
    apart = ids.copy()
    apart[:, :, [66, 67, 68, 69, 70, 120, 121, 122, 123, 124]] = 0
    image = np.random.default_rng(0).integers(0, 255, ids.shape, np.uint8)
    touching, parted = (make_stack(tmp_path / str(n), image=image, labels=one) for n, one in enumerate((ids, apart)))
    for stack, sigma_px, gap_px in ((touching, 5.1, 2), (parted, 4.8, 1)):
        record = weigh(stack, settings(), stack.record.with_name("weigh.json"))
        assert (record.sigma_px, record.gap_px) == (sigma_px, gap_px)
        assert record.why.startswith("6 objects in 2 planes, ") and record.why in capsys.readouterr().err
    by_hand = weigh(touching, settings(weigh={"sigma": 4.0, "gap_px": 2}), touching.record.with_name("weigh.json"))
    assert (by_hand.sigma_px, by_hand.gap_px, by_hand.why) == (4.0, 2, "")
    classes = settings(labels={"kind": "classes", "values": {0: "background", 1: "cell"}}, weigh={"sigma": 4.0})
    masks = make_stack(tmp_path / "classes", classes, image=image, labels=(apart > 0).astype(np.uint8))
    assert weigh(masks, classes, masks.record.with_name("weigh.json")).gap_px == 0, "classes part themselves"


def test_pixels_nobody_annotated_stay_unknown(tmp_path):
    labels = draw()[1].astype(np.uint16)
    labels[:, 20:40, 30:60] = 999
    config = settings(labels={"ignore": 999})
    target, _ = arrays(make_stack(tmp_path, config, labels=labels), config)
    assert (target[:, 20:40, 30:60] == 255).all()
    assert (target == 255).sum() == 2 * 20 * 30


@pytest.mark.slow
def test_sigma_in_micrometres_needs_and_uses_the_pixel_size(tmp_path):
    config = settings(weigh={"sigma": 2.5, "unit": "um"})
    with pytest.raises(PipelineError, match="pixel size"):
        arrays(make_stack(tmp_path / "unknown"), config)
    known = make_stack(tmp_path / "known", pixel_um=0.5)
    found, expected = arrays(known, config), arrays(known, settings(weigh={"sigma": 5.0, "gap_px": "auto"}))
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.slow
def test_objects_that_vanish_in_the_gap_are_counted(tmp_path):
    labels = np.zeros((2, 100, 130), np.uint8)
    labels[:, 10:30, 10:20], labels[:, 10:30, 20], labels[:, 10:30, 21:60] = 1, 2, 3
    stack = make_stack(tmp_path, labels=labels)
    record = weigh(stack, settings(weigh={"gap_px": 1}), stack.record.with_name("weigh.json"), block_px=16)
    assert record.vanished_objects == 2, "object 2 is one pixel wide, in both planes"
    record = weigh(stack, settings(weigh={"gap_px": 0}), stack.record.with_name("weigh.json"))
    assert record.vanished_objects == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (8, 13)])
def test_present_finds_every_value_once(shape):
    ids = np.random.default_rng(0).integers(0, 5, shape).astype(np.uint32)
    np.testing.assert_array_equal(present(ids), np.unique(ids))


def test_gathered_ids_are_each_there_once_and_take_little_memory(monkeypatch):
    monkeypatch.setattr(module, "MANY", 50)
    gathered, expected = Gathered(), set()
    for block in range(200):
        ids = np.random.default_rng(block).integers(0, 300, 20).astype(np.uint32)
        gathered.add(ids)
        expected |= set(ids.tolist())
        assert sum(map(len, gathered._parts)) <= 2 * 300 + 50
    assert gathered.all().tolist() == sorted(expected)
    assert Gathered().all().tolist() == []
