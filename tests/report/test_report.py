import csv
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
from made_results import (
    make_calibration,
    make_run,
    settings,
    with_report,
)
from read_page import decoded, read_page

from unet_pipeline.audit.record import vouching
from unet_pipeline.audit.verify import verify
from unet_pipeline.errors import PipelineError
from unet_pipeline.records.record import read_json, write_json
from unet_pipeline.report import report as module
from unet_pipeline.report.report import report
from unet_pipeline.stitch.measure import measure

ISBI = settings(evaluate={"isbi": True})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run with spaces")
    model, stacks, config = make_run(folder, ISBI)
    make_calibration(model, stacks[1].with_name("ingest.json"))
    output = folder / "results" / "report.html"
    report(model, stacks, config, output)
    return model, stacks, config, output


@pytest.fixture(scope="module")
def page(run):
    return read_page(run[3].read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_picture_is_in_the_page_and_described(page):
    images = page.all("img")
    assert len(images) == 1 + 6 + 3 + 1 + 3 + 6 + 5 + 4 + 2
    for image in images:
        assert len(image.attributes["alt"]) > 10
        height, width = decoded(image.attributes["src"]).shape[:2]
        assert (height, width) == (int(image.attributes["height"]), int(image.attributes["width"]))


def test_nothing_comes_from_elsewhere(page, run):
    text = run[3].read_text(encoding="utf-8")
    assert not re.search(r"(?i)https?:|//[a-z]|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))
    for element in page.elements:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            if name in element.attributes:
                assert element.attributes[name].startswith(("data:", "#"))
        assert not [name for name in element.attributes if name.startswith("on")]
    assert not page.all("script", "iframe", "object", "embed", "form", "base", "svg")


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = [element.attributes["id"] for element in page.elements if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    assert {link.attributes["href"].removeprefix("#") for link in page.all("a")} <= set(ids)


def test_headings_are_in_order(page):
    headings = page.all("h1", "h2", "h3", "h4", "h5", "h6")
    levels = [int(heading.name[1]) for heading in headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    chapters = [heading.text for heading in headings if heading.name == "h2"]
    questions = ["Is it good?", "Where is it wrong?", "What next?"]
    assert chapters == [*questions, "Scores", "Stacks", "Training", "Flow", "Provenance"]
    assert [heading.text for heading in headings if heading.name == "h3"] == ["unseen", "small", "new", "train_a"]


def test_tables_have_captions_and_scopes(page):
    tables = page.all("table")
    assert len(tables) > 10
    assert all(table.children[0] == "caption" for table in tables)
    assert all(cell.attributes.get("scope") in ("row", "col") for cell in page.all("th"))


def test_the_page_says_what_it_is(page):
    assert page.declarations == ["DOCTYPE html"]
    assert page.one("html").attributes["lang"] == "en"
    assert page.one("title").text == page.one("h1").text == "Segmentation report"
    assert "viewport" in [meta.attributes.get("name") for meta in page.all("meta")]


def test_how_good_it_is_comes_first_in_words_and_numbers(page, run):
    metrics = [read_json(path.with_name("metrics.json")) for path in run[1][1:3]]
    half = metrics[0]["instances"]["ap"]["0.50"]
    card = next(element for element in page.elements if element.attributes.get("class") == "card")
    words = f"precision {half['precision']:.3f}, recall {half['recall']:.3f}; SEG {metrics[0]['instances']['seg']:.3f}"
    assert " ".join(card.text.split()) == f"F1 · unseen {half['f1']:.3f} {words}"
    drawn, found = (sum(one["instances"][name] for one in metrics) for name in ("objects", "found"))
    pairs = sum(one["instances"]["ap"]["0.50"]["true_positives"] for one in metrics)
    assert f"Of {drawn} objects drawn, {pairs} were found ({pairs / drawn:.1%}, the recall)" in page.text
    assert f"of {found} found, {pairs} are right ({pairs / found:.1%}, the precision)" in page.text
    (headline,) = [element.text for element in page.elements if element.attributes.get("class") == "headline"]
    assert "of the drawn objects are found" in headline


def test_the_worst_faults_of_the_record_are_shown(page, run):
    faults = read_json(run[1][1].with_name("metrics.json"))["faults"]
    assert f"{faults['missed']} drawn object" in page.text
    crops = [
        i.attributes["alt"]
        for i in page.all("img")
        if re.search(r"(drawn|differ); (unseen|small)", i.attributes["alt"])
    ]
    assert len(crops) == 6
    first, *_ = page.all("img")
    assert first.attributes["alt"].startswith("Plane ") and "of stack unseen" in first.attributes["alt"]


def test_the_flow_has_the_real_counts(page, run):
    _, stacks, _, _ = run
    plans = [read_json(path.with_name("tiles.json")) for path in stacks[1:]]
    stitched = [read_json(path) for path in stacks[1:]]
    said = " ".join(page.one("ol").text.split())
    assert "stacks 4 stacks 6 planes" in said
    assert "ingest 0.128 Mpx 3 labelled" in said
    assert "weigh 1 stack w0 10, σ 3 px" in said
    assert "train 900 steps" in said
    assert (
        f"tile {sum(plan['tiles'] for plan in plans)} tiles {sum(s['coverage']['shards'] for s in stitched)} shards"
        in said
    )
    assert "predict 6 regions 7.5 s" in said
    assert f"stitch {sum(s['objects'] for s in stitched)} objects" in said
    assert "2 stacks scored" in said
    assert "measure not used here" in said


def test_stacks_of_the_training_are_named(page):
    assert "Trained ontrain_a" in page.text
    assert "Validated onval" in page.text
    assert page.text.count("used in training") == 1


def test_what_the_calibration_chose_and_gained_is_told(page, run):
    assert "distance, necks below 0.7, threshold 0.6, at least 20 px" in page.text
    assert "seg+ap50 0.800; as stated, without calibration, 0.600" in page.text
    assert "components, likeliest class, at least 30 px" in page.text, "how the objects shown were made"
    inputs = read_json(run[3].with_name("report.json"))["provenance"]["inputs"]
    assert [name for name in inputs if name.endswith("model/calibrate.json")]


def test_plan_proof_and_provenance_are_told(page, run):
    _, stacks, _, _ = run
    plan = read_json(stacks[1].with_name("tiles.json"))
    tiles = plan["tiles"]
    assert f"unseen{tiles}{plan['plan']['keep'][0]} × {plan['plan']['keep'][1]}" in page.text
    assert "the whole image within 0.0001 standard" in page.text
    assert "9,021.4" in page.text
    assert "proved: each of" in page.text
    for path in (*stacks, stacks[1].with_name("metrics.json")):
        made = read_json(path)["provenance"]
        assert made["config_digest"] in page.text
        assert made["commit"] in page.text
    facts = read_json(stacks[1].with_name("ingest.json"))
    assert facts["fingerprints"]["image"] in page.text
    assert facts["fingerprints"]["labels"] in page.text
    assert facts["provenance"]["config"]["source"]["image"] in page.text


@pytest.mark.slow
def test_the_same_results_give_the_same_bytes(run, tmp_path):
    model, stacks, config, output = run
    report(model, stacks, config, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == output.read_bytes()


@pytest.mark.slow
def test_stale_scores_are_not_shown(run, tmp_path):
    model, stacks, config, _ = run
    shutil.copytree(model.parent, tmp_path / "results")
    moved = [tmp_path / "results" / path.relative_to(model.parent) for path in stacks]
    write_json(moved[1], read_json(moved[1]) | {"objects": 1})
    report(tmp_path / "results" / "model", moved, config, tmp_path / "report.html")
    found = read_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "metrics.json was made from another stitch.json" in found.text
    cards = [element.text for element in found.elements if element.attributes.get("class") == "card"]
    assert len(cards) == 1
    assert "small" in cards[0]


@pytest.mark.slow
def test_pictures_fit_the_options(run, tmp_path):
    model, stacks, config, _ = run
    report(model, [stacks[1]], with_report(config, panel_px=64, planes=2), tmp_path / "report.html")
    found = read_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert [h.text.split(",")[0] for h in found.all("h4")][:2] == ["Plane 0", "Plane 1"]
    alts = ((image, image.attributes["alt"]) for image in found.all("img"))
    panels = [image for image, alt in alts if "of stack unseen" in alt and not alt.startswith("Plane ")]
    assert len(panels) == 10
    assert {decoded(image.attributes["src"]).shape[:2] for image in panels} == {(11 * 64, 11 * 64)}


def test_a_stack_named_twice_is_refused(run, tmp_path):
    model, stacks, config, _ = run
    with pytest.raises(PipelineError, match="small twice"):
        report(model, [*stacks, stacks[2]], config, tmp_path / "report.html")


@pytest.mark.parametrize("name", ["model.json", "stitch.json", "metrics.json"])
def test_a_foreign_record_is_named_and_no_page_left(run, tmp_path, name):
    model, stacks, config, _ = run
    shutil.copytree(model.parent, tmp_path / "results")
    moved = [tmp_path / "results" / path.relative_to(model.parent) for path in stacks]
    folder = tmp_path / "results" / "model"
    (folder / name if name == "model.json" else moved[1].with_name(name)).write_text("{}")
    (tmp_path / "report.html").write_text("the page of before")
    with pytest.raises(PipelineError, match=name.replace(".", r"\.")):
        report(folder, moved, config, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "the page of before"
    assert not list(tmp_path.glob(".report*"))


def test_a_part_that_is_missing_inside_a_record_is_named(run, tmp_path):
    model, stacks, config, _ = run
    shutil.copytree(model.parent, tmp_path / "results")
    stitched = tmp_path / "results" / stacks[1].relative_to(model.parent)
    path = stitched.with_name("metrics.json")
    write_json(path, read_json(path) | {"instances": {"seg": 0.5}})
    with pytest.raises(PipelineError, match=r"metrics\.json: instances\.objects: expected this key, got nothing"):
        report(tmp_path / "results" / "model", [stitched], config, tmp_path / "report.html")


@pytest.mark.slow
def test_of_many_stacks_the_first_are_pictured(run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PICTURED", 2)
    monkeypatch.setattr(module, "CARDS", 1)
    model, stacks, config, _ = run
    report(model, stacks, config, tmp_path / "report.html")
    found = read_page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Only the first 2 of 4 stacks have pictures here." in found.text
    alts = [image.attributes["alt"] for image in found.all("img")]
    named = {name for alt in alts for name in re.findall(r"of stack (\w+),", alt)}
    assert named == {"unseen", "small"}
    assert "1 more in the tables; median SEG" in found.text
    assert len(found.all("h3")) == 4


def test_the_machine_does_not_show(run, tmp_path):
    """How many threads were used changes nothing that is shown, so section compute is left out."""
    model, stacks, config, output = run
    other = replace(config, compute=replace(config.compute, threads=7))
    report(model, stacks, other, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == output.read_bytes()


def test_the_objects_of_all_stacks_are_one_table_and_their_sizes_are_shown(run, tmp_path):
    model, stacks, config, _ = run
    results = tmp_path / "results"
    shutil.copytree(model.parent, results)
    copies = [results / path.parent.name / path.name for path in stacks]
    csv_only = replace(config, measure=replace(config.measure, formats=("csv",)))
    records = [measure(path, csv_only, path.with_name("measure.json")) for path in copies if path.name == "stitch.json"]
    report(results / "model", copies, csv_only, results / "report.html")
    with (results / "objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stack"] for row in rows] == [one.stack for one in records for _ in range(one.objects)]
    assert [int(row["id"]) for row in rows] == [number for one in records for number in range(1, one.objects + 1)]
    page = read_page((results / "report.html").read_text(encoding="utf-8"))
    assert f"measure {sum(one.objects for one in records)} rows" in " ".join(page.one("ol").text.split())
    shown = [table.text for table in page.all("table") if "Objects by size" in table.text]
    assert len(shown) == 3 and f"{records[0].touching} of {records[0].objects} reach the border" in shown[0]
    bars = [cell for cell in page.all("i") if "width:" in cell.attributes.get("style", "")]
    assert len(bars) == sum(len(one.sizes) for one in records)
    assert "width:100%" in {bar.attributes["style"] for bar in bars}
    _check_all_but_the_weights(results)
    assert vouching(results / "objects.csv") == [results / "report.json"]
    assert vouching(copies[1].with_name("objects.csv")) == [copies[1].with_name("measure.json")]
    report(
        results / "model", copies, replace(config, measure=replace(config.measure, formats=())), results / "report.html"
    )
    assert not (results / "objects.csv").exists(), "nothing would vouch for it"
    _check_all_but_the_weights(results)


def _check_all_but_the_weights(results):
    said = []
    with pytest.raises(PipelineError, match="1 damaged"):
        verify(results, said.append)
    (damaged,) = [line for line in said if line.startswith("DAMAGED")]
    assert "weights.safetensors" in damaged, "a model without weights"
