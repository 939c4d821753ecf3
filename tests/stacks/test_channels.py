"""Three grey frames that a file calls colours are noticed before the training, not after it."""

import numpy as np
import pytest
import tifffile

from unet_pipeline.__main__ import main
from unet_pipeline.errors import PipelineError
from unet_pipeline.stacks.channels import check_channels

HEADER = "stack\timage\tlabels\trole\taxes\n"


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("frames.tif", np.zeros((3, 64, 80), np.uint8), photometric="rgb", planarconfig="separate")
    tifffile.imwrite("grey.tif", np.zeros((5, 64, 80), np.uint8), photometric="minisblack")
    for name in ("a", "b"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        tifffile.imwrite(f"folder/{name}.tif", np.zeros((64, 80), np.uint8))
    return tmp_path / "t.tsv"


@pytest.mark.parametrize("role", ["val", "test", "predict"])
def test_stacks_that_differ_in_channels_are_refused_before_training(table, role):
    table.write_text(f"{HEADER}a\tgrey.tif\tgrey.tif\ttrain\t\nb\tframes.tif\tl.tif\t{role}\t\n")
    with pytest.raises(PipelineError, match=r"stack b, frames\.tif: expected 1 channels as a.*got 3") as caught:
        check_channels(table, "a")
    assert "zyx" in caught.value.fix
    assert main(["ingest", "--stack", "a", "--image", "grey.tif", "--table", str(table), "--output", "a.json"]) != 0
    check_channels(table, "b")


@pytest.mark.parametrize(
    "other", ["folder\tl\ttest\tzyx", "frames.tif\tl\ttest\tzyx", "none.tif\tl\ttest\t", "folder\tl\tval\t"]
)
def test_stacks_that_agree_or_cannot_be_told_pass(table, other):
    table.write_text(f"{HEADER}a\tgrey.tif\tl\ttrain\t\nb\t{other}\n")
    check_channels(table, "a")
