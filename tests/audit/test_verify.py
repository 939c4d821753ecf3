import random

import pytest
import torch
from chain import make_plan, make_stack, run, settings

from unet_pipeline.audit.verify import verify
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.train.train import train_model

CONFIG = settings(stitch={"tiff": True})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A results folder with one of everything."""
    folder = tmp_path_factory.mktemp("my results")
    stack = make_stack(folder, CONFIG)
    record = stack.record
    weigh(Stack.open(record), CONFIG, record.with_name("weigh.json"))
    train_model([record.with_name("weigh.json")], [], CONFIG, folder / "results" / "model")
    stitched = run(make_plan(stack, CONFIG), folder / "results" / "model", CONFIG)
    evaluate(stitched, CONFIG, stitched.with_name("metrics.json"))
    assert torch.get_num_threads()
    return folder / "results"


def files(results):
    return sorted(path for path in results.rglob("*") if path.is_file())


def said(folder):
    lines = []
    try:
        verify(folder, lines.append)
    except PipelineError as error:
        lines.append(str(error))
    return "\n".join(lines)


def test_whole_results_are_verified(results):
    for folder in (results, results / "cells", results / "model"):
        assert " 0 damaged" in said(folder)
    tally = verify(results, lambda line: None)
    assert tally.files == {path for path in files(results) if path.suffix != ".shards"}


def test_a_flipped_bit_in_any_file_is_found_and_the_file_and_its_remedy_named(results):
    """Journals aside: a damaged one is not used (see test_journal)."""
    shards = [path for path in files(results) if "c" in path.parts]
    others = [path for path in files(results) if "c" not in path.parts and path.suffix != ".shards"]
    assert len(shards) > 80
    assert len(others) > 40
    for number, file in enumerate([*others, *shards[::5]]):
        content, chance = file.read_bytes(), random.Random(number)
        place = chance.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :])
        text = said(results)
        file.write_bytes(content)
        assert str(file) in text, f"{file} at {place}"
        assert "--forcerun" in text or "remove it" in text, text
    assert " 0 damaged" in said(results)


def test_the_remedy_is_the_record_of_the_step_that_made_the_file(results):
    cells = results / "cells"
    for file, record in (
        ("segmentation.ome.zarr/0/c/0/1/0/0", "regions/1.json"),
        ("segmentation.ome.zarr/labels/classes/0/c/0/0/0", "regions/0.json"),
        ("segmentation.ome.zarr/labels/instances/0/c/0/0/0", "stitch.json"),
        ("segmentation.ome.zarr/1/c/0/0/0/0", "stitch.json"),
        ("segmentation.ome.zarr/zarr.json", "tiles.json"),
        ("image.ome.zarr/labels/instances/0/c/0/0/0", "ingest.json"),
        ("weights.zarr/boundary/c/0/0/0", "weigh.json"),
        ("classes.tif", "stitch.json"),
        ("confusion.csv", "metrics.json"),
    ):
        content = (cells / file).read_bytes()
        (cells / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        text = said(cells)
        (cells / file).write_bytes(content)
        assert f"{cells / file}: " in text
        assert f"--forcerun {cells / record}`" in text, text


def test_lost_and_foreign_files_are_named(results):
    store = results / "cells" / "image.ome.zarr"
    (store / "0" / "stranger").write_text("?")
    assert "stranger: expected the file that" in said(results)
    (store / "0" / "stranger").unlink()
    away = (store / "zarr.json").rename(results / "away")
    assert f"{store / 'zarr.json'}: expected" in said(results)
    away.rename(store / "zarr.json")


def test_a_folder_without_results_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(PipelineError, match="records of this pipeline"):
            verify(folder, print)


def test_scores_of_a_changed_volume_are_refused(results):
    cells = results / "cells"
    file = cells / "segmentation.ome.zarr" / "labels" / "instances" / "0" / "c" / "0" / "1" / "1"
    content = file.read_bytes()
    other = cells / "image.ome.zarr" / "labels" / "instances" / "0" / "c" / "0" / "0" / "0"
    file.write_bytes(other.read_bytes())  # a shard that decodes well, but is not the one that was written
    with pytest.raises(PipelineError, match=r"--forcerun .*stitch\.json"):
        evaluate(cells / "stitch.json", CONFIG, cells / "again.json")
    file.write_bytes(content)
    assert not (cells / "again.json").exists()


def test_a_link_in_a_store_is_damage_and_another_is_named(results, tmp_path):
    cells = results / "cells"
    for store, name in (("segmentation.ome.zarr", "labels"), ("image.ome.zarr", "0/c/0/0/0/0")):
        place = cells / store / name
        away = place.rename(tmp_path / store)
        place.symlink_to(away)
        text = said(results)
        place.unlink()
        away.rename(place)
        assert f"{place}: expected a file or folder that this pipeline wrote, got a symbolic link to {away}" in text
        assert " 1 damaged" in text
    (results / "logs").symlink_to(tmp_path)
    text = said(results)
    (results / "logs").unlink()
    assert f"LINK {results / 'logs'} leads out" in text
    assert " 0 damaged" in text


def test_a_device_in_place_of_a_file_is_named_and_not_read(results):
    cells = results / "cells"
    for name in ("segmentation.ome.zarr/zarr.json", "image.ome.zarr/zarr.json", "stitch.sha256", "stitch.json"):
        content = (cells / name).read_bytes()
        (cells / name).unlink()
        (cells / name).symlink_to("/dev/zero")
        text = said(results)
        (cells / name).unlink()
        (cells / name).write_bytes(content)
        assert str(cells / name) in text
        assert " 0 damaged" not in text
