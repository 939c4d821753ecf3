"""Whatever was damaged: after the commands that verify prints, the results equal those of an undisturbed run."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from same_tree import differing, tree
from workspace import Workspace

from unet_pipeline.audit.verify import verify
from unet_pipeline.errors import PipelineError

pytestmark = pytest.mark.slow

FILES = (
    "unseen/image.ome.zarr/0/c/0/1/0/1", "unseen/image.ome.zarr/labels/instances/0/c/0/0/0",
    "unseen/image.ome.zarr/0/zarr.json", "learn/weights.zarr/boundary/c/0/0/0", "learn/weights.zarr/zarr.json",
    "unseen/segmentation.ome.zarr/0/c/0/1/0/1", "unseen/segmentation.ome.zarr/labels/classes/0/c/0/0/0",
    "unseen/segmentation.ome.zarr/labels/instances/0/c/0/0/0", "unseen/segmentation.ome.zarr/labels/zarr.json",
    "unseen/segmentation.ome.zarr/1/c/0/0/0/0", "model/weights.safetensors", "model/history.tsv",
    "unseen/confusion.csv", "report.html",
)  # fmt: skip
"""A file of each kind that is no record."""

RECORDS = (
    "unseen/ingest.json", "learn/weigh.json", "learn/weigh.sha256", "model/model.json", "model/calibrate.json",
    "new/tiles.json", "unseen/regions/1.json", "unseen/stitch.json", "unseen/stitch.sha256", "unseen/metrics.json",
    "report.json", "report.sha256",
)  # fmt: skip


def flip(file: Path) -> None:
    """Change a bit in the middle."""
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])


def cut(file: Path) -> None:
    """Lose the second half."""
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def remedies(results: Path) -> tuple[str, list[str]]:
    """Return what verify says, and the records that it wants made again."""
    said: list[str] = []
    with pytest.raises(PipelineError):
        verify(results, said.append)
    text = "\n".join(said)
    return text, list(dict.fromkeys(re.findall(r"--forcerun ([^`]+)`", text)))


@pytest.mark.parametrize("names", [FILES, RECORDS], ids=["files", "records"])
@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_the_printed_remedies_mend_everything(
    done: Workspace, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], damage: Callable[[Path], None]
) -> None:
    monkeypatch.chdir(done.folder)
    results = Path("results")
    expected = tree(results)
    for name in names:  # each is found where it is alone
        file = results / name
        content = file.read_bytes()
        damage(file)
        assert str(file) in remedies(results)[0]
        file.write_bytes(content)
    assert not differing(expected, tree(results))
    for name in names:
        damage(results / name)
    for _ in range(len(names)):  # what hides behind a damaged record is named when that is mended
        ran = done.run("--forcerun", *remedies(results)[1])
        assert ran.code == 0, ran.text
        if not differing(expected, tree(results)):
            break
    assert not differing(expected, tree(results))
    verify(results, lambda line: None)


def test_a_model_whose_folder_is_gone_is_named(done: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(done.folder)
    expected = tree(Path("results"))
    shutil.rmtree("results/model")
    text, wanted = remedies(Path("results"))
    assert wanted == ["results/model/model.json"]
    assert text.count("DAMAGED results/model/model.json: expected the record that ") == 1
    assert done.run("--forcerun", *wanted).code == 0
    assert not differing(expected, tree(Path("results")))


def test_a_prediction_made_while_a_shard_was_missing_does_not_survive(
    done: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused; and what the refusal says, and that alone, mends it."""
    monkeypatch.chdir(done.folder)
    results = Path("results")
    expected = tree(results)
    (results / FILES[0]).unlink()
    shutil.rmtree(results / "unseen" / "segmentation.ome.zarr")
    for record in ("tiles.json", "regions/0.json", "regions/1.json", ".regions"):
        (results / "unseen" / record).unlink(missing_ok=True)
    ran = done.run("--keep-going")
    assert ran.code == 1
    assert (
        f"{results / FILES[0]}: expected the file that {results}/unseen/ingest.json vouches for, got no file"
        in ran.text
    )
    assert done.run("--forcerun", "results/unseen/ingest.json").code == 0
    assert not differing(expected, tree(results))
