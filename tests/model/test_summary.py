"""The summary against the paper's count of parameters, and against work counted by hand."""

import json

import pytest
from chain import make_model

from unet_pipeline.__main__ import main
from unet_pipeline.errors import PipelineError
from unet_pipeline.model.card import Architecture
from unet_pipeline.model.summary import describe, of_architecture, summarise
from unet_pipeline.records.layout import WEIGHTS_FILE

TINY = Architecture("unet", 1, 2, 1, 3, 0.0)


def test_the_papers_network():
    found = of_architecture(Architecture(), tile_px=384)
    assert found["parameters"] == 31_030_658
    assert found["weight_bytes"] == 4 * 31_030_658
    assert found["tile"] == {"keep_px": 384, "read_px": 572, "output_px": 388}
    outputs = {level["name"]: level["output"] for level in found["levels"]}
    assert outputs["contracting.0"] == [64, 568, 568]  # the numbers of figure 1
    assert outputs["contracting.4"] == [1024, 28, 28]
    assert outputs["expanding.3"] == [64, 388, 388]
    assert outputs["head"] == [2, 388, 388]


def test_the_work_of_a_tiny_network_counted_by_hand():
    """Depth 1, 2 channels, keeping 2 px of 18: a 3x3 convolution costs 9 x inputs x outputs at each output pixel."""
    found = of_architecture(TINY, tile_px=2)
    by_hand = {
        "contracting.0": (9 * 1 * 2 * 16**2 + 9 * 2 * 2 * 14**2, 9 * 1 * 2 + 2 + 9 * 2 * 2 + 2, [2, 14, 14]),
        "contracting.1": (9 * 2 * 4 * 5**2 + 9 * 4 * 4 * 3**2, 9 * 2 * 4 + 4 + 9 * 4 * 4 + 4, [4, 3, 3]),
        "up.0": (4 * 4 * 2 * 3**2, 4 * 4 * 2 + 2, [2, 6, 6]),
        "expanding.0": (9 * 4 * 2 * 4**2 + 9 * 2 * 2 * 2**2, 9 * 4 * 2 + 2 + 9 * 2 * 2 + 2, [2, 2, 2]),
        "head": (2 * 3 * 2**2, 2 * 3 + 3, [3, 2, 2]),
    }
    assert {
        level["name"]: (level["multiply_adds"], level["parameters"], level["output"]) for level in found["levels"]
    } == by_hand
    assert found["multiply_adds"] == sum(work for work, _, _ in by_hand.values())
    assert found["flops"] == 2 * found["multiply_adds"]
    assert found["flops_per_pixel"] == found["flops"] / 2**2
    assert found["parameters"] == sum(parameters for _, parameters, _ in by_hand.values())


@pytest.mark.parametrize(("depth", "keep_px"), [(1, 384), (4, 384), (6, 384)])
def test_without_a_tile_the_work_is_that_of_about_the_papers(depth, keep_px):
    assert of_architecture(Architecture("unet", depth, 1))["tile"]["keep_px"] == keep_px


def test_a_model_folder_in_text_and_as_json(tmp_path, capsys):
    folder = make_model(tmp_path / "model", depth=2, base_channels=4)
    assert main(["summary", "--model", str(folder), "--tile-px", "32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(summarise(folder, 32)))
    assert found["file_bytes"] == (folder / WEIGHTS_FILE).stat().st_size > found["weight_bytes"]
    assert found["geometry"]["before"] == 20
    assert found["sizes"] == {"smallest_px": 44, "step_px": 4}
    assert main(["summary", "--model", str(folder), "--tile-px", "32"]) == 0
    text = capsys.readouterr().out
    assert text == describe(found) + "\n"
    assert f"{found['parameters']:,}" in text
    assert "reads 20 px before and 20 px after" in text
    assert "44 px or more in steps of 4 px" in text


def test_the_weights_need_not_be_there(tmp_path):
    folder = make_model(tmp_path / "model")
    (folder / WEIGHTS_FILE).unlink()
    found = summarise(folder)
    assert found["file_bytes"] is None
    assert WEIGHTS_FILE not in describe(found)


def test_a_tile_that_is_no_multiple_of_the_stride_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="nearest legal value: 32"):
        summarise(make_model(tmp_path / "model"), 33)


def test_no_model_is_one_message(tmp_path, capsys):
    assert main(["summary", "--model", str(tmp_path)]) == 1
    assert "model.json" in capsys.readouterr().err


def test_a_network_of_volumes_is_counted_in_voxels():
    network = Architecture("unet", 1, 2, 1, 3, 0.0, dimensions=3, z_levels=2)
    found = of_architecture(network, tile_px=2)
    first = found["levels"][0]
    assert first["output"] == [2, 14, 14, 14]
    assert first["multiply_adds"] == 27 * 1 * 2 * 16**3 + 27 * 2 * 2 * 14**3
    assert found["flops_per_pixel"] == found["flops"] / 2**3
    thin = of_architecture(Architecture("unet", 1, 2, 1, 3, 0.0, dimensions=3, z_levels=1), tile_px=2)
    assert (thin["along_z"]["keep_px"], thin["along_z"]["read_px"]) == (1, 5)
    assert thin["levels"][0]["output"] == [2, 5, 14, 14], "1 x 3 x 3 convolutions"
    assert "along z: keeps 1 planes, reads 2 before and 2 after them" in describe(thin)
