import random
from contextlib import contextmanager

import pytest
import torch
from chain import make_plan, make_stack, run, settings

from unet_pipeline.audit.verify import verify
from unet_pipeline.errors import PipelineError
from unet_pipeline.evaluate.evaluate import evaluate
from unet_pipeline.records.record import read_json, write_json
from unet_pipeline.report.report import report
from unet_pipeline.stacks.stack import Stack
from unet_pipeline.stacks.weigh import weigh
from unet_pipeline.train.train import train_model

CONFIG = settings(stitch={"tiff": True}, report={"pictures": ["curves"]})


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
    report(folder / "results" / "model", [stitched], CONFIG, folder / "results" / "report.html")
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


@pytest.mark.slow
def test_a_flipped_bit_in_any_file_is_found_and_the_file_and_its_remedy_named(results):
    """Journals aside: a damaged one is not used (see test_journal)."""
    shards = [path for path in files(results) if "c" in path.parts]
    others = [path for path in files(results) if "c" not in path.parts and path.suffix != ".shards"]
    assert len(shards) > 80
    assert len(others) > 40
    for together in (*([file] for file in others), shards[::5]):
        whole = {file: file.read_bytes() for file in together}
        for number, (file, content) in enumerate(whole.items()):
            chance = random.Random(f"{number} {file.name}")
            place = chance.randrange(len(content))
            file.write_bytes(
                content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
            )
        text = said(results)
        for file, content in whole.items():
            file.write_bytes(content)
            assert str(file) in text, file
        assert "--forcerun" in text or "remove it" in text, text
    assert " 0 damaged" in said(results)


def test_the_remedy_is_the_record_of_the_step_that_made_the_file(results):
    cells = results / "cells"
    for file, record in (
        ("segmentation.ome.zarr/0/c/0/1/0/0", "regions/1.json"),
        ("segmentation.ome.zarr/labels/classes/0/c/0/0/0", "stitch.json"),
        ("segmentation.ome.zarr/labels/instances/0/c/0/0/0", "stitch.json"),
        ("segmentation.ome.zarr/1/c/0/0/0/0", "stitch.json"),
        ("segmentation.ome.zarr/zarr.json", "tiles.json"),
        ("image.ome.zarr/labels/instances/0/c/0/0/0", "ingest.json"),
        ("weights.zarr/boundary/c/0/0/0", "weigh.json"),
        ("classes.tif", "stitch.json"),
        ("confusion.csv", "metrics.json"),
        ("../report.html", "../report.json"),
        ("../pictures/loss.png", "../report.json"),
    ):
        content = (cells / file).read_bytes()
        (cells / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        text = said(results)
        (cells / file).write_bytes(content)
        assert f"{(cells / file).resolve()}: " in text
        assert f"--forcerun {(cells / record).resolve()}`" in text, text


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
    places = (("segmentation.ome.zarr", "labels", "tiles.json"), ("image.ome.zarr", "0/c/0/0/0/0", "ingest.json"))
    for store, name, made_by in places:
        place = cells / store / name
        away = place.rename(tmp_path / store)
        place.symlink_to(away)
        text = said(results)
        place.unlink()
        away.rename(place)
        assert f"{place}: expected a file or folder that this pipeline wrote, got a symbolic link to {away}" in text
        assert f"remove it, then run the workflow again with `--forcerun {cells / made_by}`" in text
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


@contextmanager
def rewritten(record, **changed):
    """A record with other values, sealed as if they had been written so."""
    content = record.read_bytes()
    write_json(record, read_json(record) | changed)
    yield
    record.write_bytes(content)


def test_the_record_of_another_stack_is_damage(results):
    """Metrics that two stacks exchanged are whole, each with its seal and its table."""
    for name in ("metrics.json", "stitch.json", "regions/1.json"):
        record = results / "cells" / name
        with rewritten(record, stack="others"):
            for folder in (results, results / "cells"):
                assert f"DAMAGED {record}: expected a record of stack cells, got one of stack others" in said(folder)
    exchanged = (results / "cells").rename(results / "others")
    assert "expected a record of stack others, got one of stack cells" in said(results)
    exchanged.rename(results / "cells")


def test_regions_that_were_exchanged_are_damage(results):
    """Each record is whole, and together they cover the volume; but each would be made again in the other's place."""
    first, second = (results / "cells" / "regions" / f"{region}.json" for region in (0, 1))
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    text = said(results)
    first.write_bytes(contents[0])
    second.write_bytes(contents[1])
    assert f"DAMAGED {first}: expected the record of region 0, got that of region 1" in text
    assert f"--forcerun {second}`" in text


def test_a_fault_that_several_records_meet_is_said_once(results):
    for name in ("ingest.json", "tiles.json"):
        record = results / "cells" / name
        content = record.read_bytes()
        record.write_text("")
        text = said(results)
        record.write_bytes(content)
        assert text.count(f"DAMAGED {record}") == 1, text


def test_a_record_of_an_older_run_is_damage(results):
    """Put back from a backup, or left beside a stack whose other records were made anew."""
    cells = results / "cells"
    for name, source in (
        ("metrics.json", "stitch.json"),
        ("stitch.json", "regions/0.json"),
        ("../report.json", "metrics.json"),
    ):
        record = (cells / name).resolve()
        made = read_json(record)["provenance"]
        inputs = {one: "0" * 64 if one.endswith(source) else total for one, total in made["inputs"].items()}
        assert inputs != made["inputs"]
        with rewritten(record, provenance=made | {"inputs": inputs}):
            text = said(results)
        assert f"DAMAGED {record}: expected a record made from {cells / source} as it lies there, got one made" in text
        assert f"--forcerun {record}`" in text
        assert "1 damaged" in text, text


def test_a_volume_of_another_model_is_said_to_be_so(results):
    """No damage: the stack may have left the table before the model was trained again."""
    card = results / "model" / "model.json"
    with rewritten(card, training=read_json(card)["training"] | {"steps": 5}):
        text = said(results)
    assert f"OLDER {results / 'cells' / 'regions' / '0.json'}: expected a record made from {card} as it lies" in text
    assert " 0 damaged" in text


@pytest.mark.parametrize("name", ["regions/1.json", "tiles.json", "ingest.json", "weigh.json", "stitch.json"])
def test_a_record_that_is_gone_from_the_middle_is_named_once(results, name):
    record = results / "cells" / name
    away = record.rename(results / "away")
    text = said(results)
    away.rename(record)
    assert text.count(f"DAMAGED {record}: expected the record that") == 1, text
    assert f"--forcerun {record}`" in text


def test_a_page_without_its_record_is_damage(results):
    away = (results / "report.json").rename(results / "away")
    assert f"--forcerun {results / 'report.json'}`" in said(results)
    away.rename(results / "report.json")
