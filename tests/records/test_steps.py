"""Records: what a step writes is read back as it was; what is forged, damaged or of an earlier version is refused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_results import (
    make_calibration,
    make_ingested,
    make_model,
    make_predicted,
    make_proof,
    make_scored,
    make_weighed,
    settings,
)

from unet_pipeline.__main__ import main
from unet_pipeline.errors import LONGEST, PipelineError
from unet_pipeline.model.card import read_card
from unet_pipeline.records.fields import LARGEST, Files
from unet_pipeline.records.layout import (
    CARD_FILE,
    INGEST_FILE,
    MEASURE_FILE,
    METRICS_FILE,
    PROVE_FILE,
    REPORT_FILE,
    REPORT_RECORD,
    STITCH_FILE,
    TILES_FILE,
    WEIGH_FILE,
    region_path,
)
from unet_pipeline.records.record import SEAL, read_json, write_json, write_record
from unet_pipeline.records.steps import RECORDS, EarlierVersion, open_any, open_record
from unet_pipeline.records.volume_records import Finished, PredictRecord, ShardWritten, StitchRecord
from unet_pipeline.report.report import report
from unet_pipeline.stitch.measure import measure


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The record of each step, by the step."""
    folder, config = tmp_path_factory.mktemp("written"), settings(evaluate={"isbi": True})
    model = make_model(folder / "results" / "model", config)
    ingested = make_ingested(folder, "a", (1, 64, 70), config)
    make_weighed(ingested, config)
    make_proof(make_scored(make_predicted(ingested, config, regions=1), config), model, config)
    measure(ingested.with_name(STITCH_FILE), settings(measure={"formats": ["csv"]}), ingested.with_name(MEASURE_FILE))
    report(model, [ingested.with_name(STITCH_FILE)], config, folder / "results" / REPORT_FILE)
    names = {"ingest": INGEST_FILE, "weigh": WEIGH_FILE, "tile": TILES_FILE, "stitch": STITCH_FILE}
    names |= {"measure": MEASURE_FILE, "evaluate": METRICS_FILE, "prove": PROVE_FILE}
    return {step: ingested.with_name(name) for step, name in names.items()} | {
        "calibrate": make_calibration(model, ingested),
        "predict": region_path(ingested.parent, 0),
        "report": folder / "results" / REPORT_RECORD,
    }


def test_each_record_names_its_step_first_and_is_read_as_it_was_written(written: dict[str, Path]) -> None:
    assert set(written) == set(RECORDS)
    for step, path in written.items():
        facts = json.loads(path.read_text())
        assert next(iter(facts.items())) == ("step", step)
        record = open_any(path)
        assert type(record) is RECORDS[step]
        assert json.loads(json.dumps(asdict(record))) == {key: part for key, part in facts.items() if key != SEAL}


def test_a_card_names_its_step_too(written: dict[str, Path]) -> None:
    card = written["ingest"].parents[1] / "model" / CARD_FILE
    assert next(iter(json.loads(card.read_text()).items())) == ("step", "train")


def test_the_record_of_another_step_is_refused(written: dict[str, Path]) -> None:
    with pytest.raises(PipelineError, match=r"weigh\.json: step: expected what stitch writes, got weigh"):
        open_record(written["weigh"], StitchRecord)


JUNK = [None, True, -1, 2**70, 0.5, 10**400, "", "x", "../../x", "\ud800", [], [0], {}, {"a": 0}]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield every place of a value below the root; of a list the first item, of a configuration nothing inside."""
    if at:
        yield at
    if isinstance(value, dict) and at[-1:] != ("config",):
        for key in value:
            yield from places(value[key], (*at, key))
    if isinstance(value, list) and value:
        yield from places(value[0], (*at, 0))


@given(data=st.data())
def test_whatever_stands_in_a_place_is_refused_or_fits(written: dict[str, Path], data: st.DataObject) -> None:
    """Refused with a message that names the file and the place, also where a forger made the checksum right."""
    step = data.draw(st.sampled_from(sorted(written)))
    facts = read_json(written[step])
    *way, last = data.draw(st.sampled_from(sorted(places(facts), key=str)))
    inner = facts
    for key in way:
        inner = inner[key]
    inner[last] = data.draw(st.sampled_from(JUNK))
    forged = written[step].with_name("forged.json")
    write_json(forged, facts)
    try:
        fits = open_record(forged, RECORDS[step])
    except PipelineError as error:
        assert error.where.startswith(f"{forged}: {(way or [last])[0]}")
        assert "--forcerun" in error.fix
        assert len(str(error)) < 4 * LONGEST
    else:
        assert asdict(fits)["step"] == step
        assert json.dumps(asdict(fits), allow_nan=False)
    finally:
        forged.unlink()


@pytest.mark.parametrize("step", sorted(RECORDS))
def test_a_key_that_is_missing_or_unknown_is_named(written: dict[str, Path], step: str) -> None:
    forged = written[step].with_name("forged.json")
    for key in [field.name for field in fields(RECORDS[step])][1:]:
        facts = read_json(written[step])
        del facts[key]
        write_json(forged, facts)
        with pytest.raises(PipelineError, match=rf"forged\.json: {key}: expected this key, got nothing"):
            open_record(forged, RECORDS[step])
    write_json(forged, read_json(written[step]) | {"stak": "a"})
    with pytest.raises(PipelineError, match=r"forged\.json: stak: .* unknown key 'stak'"):
        open_record(forged, RECORDS[step])
    forged.unlink()


@pytest.mark.parametrize("name", ["", ".", "..", "../ingest.json", "/etc/passwd", "a/b"])
def test_records_point_to_what_lies_beside_them(written: dict[str, Path], name: str) -> None:
    forged = written["weigh"].with_name("forged.json")
    write_json(forged, read_json(written["weigh"]) | {"ingest": name})
    with pytest.raises(PipelineError, match=r"forged\.json: ingest: expected the name of a file beside the record"):
        open_any(forged)
    forged.unlink()


@pytest.mark.parametrize("size", [0, LARGEST, 2**70, True, 1.0])
def test_sizes_count_from_1_and_fit_the_integers_of_arrays(written: dict[str, Path], size: Any) -> None:
    forged, facts = written["ingest"].with_name("forged.json"), read_json(written["ingest"])
    facts["grid"]["height"] = size
    write_json(forged, facts)
    with pytest.raises(PipelineError, match=r"forged\.json: grid\.height: "):
        open_any(forged)
    forged.unlink()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"step": ' + "[" * 100_000, "[1]", "{", '{"a": NaN}', "\0"])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / INGEST_FILE).write_text(text)
    with pytest.raises(PipelineError, match=r"ingest\.json"):
        open_any(tmp_path / INGEST_FILE)


def test_sealed_json_of_another_kind_is_no_result_of_an_earlier_version(tmp_path: Path) -> None:
    for facts in ({"a": 1}, {"step": "fly"}, {"step": ["ingest"]}, {"step": None, "provenance": {}}):
        write_json(tmp_path / "a.json", facts)
        with pytest.raises(PipelineError, match=r"a\.json: step: expected one of ingest, weigh") as caught:
            open_any(tmp_path / "a.json")
        assert not isinstance(caught.value, EarlierVersion)


def earlier(path: Path) -> None:
    """Write a record again as version 0.1 wrote it, without its step."""
    facts = read_json(path)
    del facts["step"]
    if "provenance" in facts:
        facts["provenance"]["unet_pipeline"] = "0.1.0"
    write_json(path, facts)


def test_results_of_an_earlier_version_end_in_one_message(
    written: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    results = shutil.copytree(written["ingest"].parents[1], tmp_path / "results")
    for path in [results / path.relative_to(written["ingest"].parents[1]) for path in written.values()]:
        earlier(path)
    earlier(results / "model" / CARD_FILE)
    stitched, ingested = results / "a" / STITCH_FILE, results / "a" / INGEST_FILE
    for verb in (
        ("verify", results), ("verify", results / "a"), ("record", results / "a"), ("differs", results / "a"),
        ("evaluate", "--stitch", stitched, "--output", tmp_path / "m.json"),
        ("tile", "--ingest", ingested, "--output", tmp_path / "tiles.json"),
    ):  # fmt: skip
        assert main([str(word) for word in verb]) == (2 if verb[0] == "differs" else 1)
        said = capsys.readouterr()
        assert "DAMAGED" not in said.out
        assert said.err.count("error: ") == said.err.count("of an earlier version, 0.1.0") == 1
        assert "run the workflow again" in said.err
    assert read_card(results / "model").step == "train", "a trained model is worth a night: its card is still read"


def test_a_record_of_a_million_pixels_of_shards_opens_in_seconds(written: dict[str, Path], tmp_path: Path) -> None:
    """A region may have 100 000 shards: building one costs microseconds, not the milliseconds of resolving types."""
    facts = read_json(written["predict"])
    facts["shards"] = [{"shard": n, "probabilities": "0" * 64} for n in range(20_000)]
    write_json(tmp_path / "0.json", facts)
    start = time.process_time()
    assert open_record(tmp_path / "0.json", PredictRecord).shards[-1] == ShardWritten(19_999, "0" * 64)
    assert time.process_time() - start < 5


def test_all_of_a_record_is_checked() -> None:
    """No part of a record is a mapping of anything, but what free keys are for: configurations."""
    free = {"config"}
    waiting, seen = [*RECORDS.values(), Finished], set()
    while waiting:
        kind = waiting.pop()
        for name, hint in get_type_hints(kind).items():
            assert "Any" not in str(hint) or name in free, f"{kind.__name__}.{name}"
            parts = [part for part in _parts(hint) if is_dataclass(part) and part not in seen]
            seen |= set(parts)
            waiting += parts
    assert Files in seen


def _parts(hint: Any) -> Iterator[Any]:
    yield hint
    for part in getattr(hint, "__args__", ()):
        if getattr(hint, "__origin__", None) is not Literal:
            yield from _parts(part)


def test_a_record_without_its_step_is_not_written(tmp_path: Path) -> None:
    noted = Finished(key="k", shards=())
    write_record(tmp_path / "a", noted)
    assert list(json.loads((tmp_path / "a").read_text())) == ["step", "key", "shards", SEAL]
