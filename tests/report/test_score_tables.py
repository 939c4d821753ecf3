from types import SimpleNamespace

import numpy as np
import pytest
from read_page import read_page

from unet_pipeline.config.keys import build
from unet_pipeline.evaluate.evaluate import _classes, _instances
from unet_pipeline.evaluate.faults import Boxes, find_faults
from unet_pipeline.evaluate.isbi import combine_planes, isbi_scores
from unet_pipeline.evaluate.overlaps import OverlapTable
from unet_pipeline.evaluate.pixels import pixel_scores
from unet_pipeline.evaluate.scores import confusion
from unet_pipeline.objects.box import Box
from unet_pipeline.records.score_records import EvaluateRecord
from unet_pipeline.report.render import mean_average_precision, render

TRUTH = np.repeat([[0, 1, 1, 2, 2, 3, 3, 3, 0, 0]], 10, axis=0)
FOUND = np.repeat([[0, 7, 7, 8, 0, 9, 9, 9, 5, 0]], 10, axis=0)

BOX = Box.of(0, slice(0, 10), slice(0, 10))


def scored(name, isbi=None, truth=TRUTH, found=FOUND, role=None):
    counts = confusion(truth > 0, found > 0, 2)
    metrics = {
        "stack": name,
        "instances": _instances(OverlapTable.of(truth, found)),
        "faults": find_faults(OverlapTable.of(truth, found), *(Boxes.of(ids, BOX, 0) for ids in (truth, found))),
        "classes": _classes(counts, ("background", "cell")),
        "pixels": {"scored": int(counts.sum()), "of": int(truth.size)} | pixel_scores(counts).as_dict(),
        "confusion": counts.tolist(),
        "isbi": isbi,
        "provenance": {"config": {}, "inputs": {}, "packages": {}},
        "confusion_sha256": "",
    }
    return SimpleNamespace(name=name, metrics=build(EvaluateRecord, metrics, name), role=role)


def page(*results):
    anchors = {result.name: f"stack-{i}" for i, result in enumerate(results)}
    scored = [result for result in results if result.metrics is not None]
    return read_page(f"<body>{render('scores.html', {'scored': scored, 'anchors': anchors})}</body>")


def tables(found):
    """{caption: rows of text, the head included}"""
    result, rows = {}, []
    for element in found.all("caption", "tr", "th", "td"):
        if element.name == "caption":
            rows = result.setdefault(element.text, [])
        elif element.name == "tr":
            rows.append([])
        else:
            rows[-1].append(" ".join(element.text.split()))
    return result


def test_instances_come_first_with_their_values():
    found = tables(page(scored("one")))
    assert next(iter(found)) == "Instances"
    head, row = found["Instances"]
    assert head == ["Stack", "F1", "precision", "recall", "SEG", "AP50", "AP75", "mean AP", "drawn", "found"]
    # at 0.50 the half of object 2 counts: 3 pairs, 1 spurious object; above it is lost
    assert row[:4] == ["one", f"{6 / 7:.3f}", "0.750", "1.000"]
    # objects 1 and 3 are exact; of 2 one half is found: SEG wants more
    assert row[4] == "0.667"
    assert row[5:7] == ["0.750", f"{2 / 5:.3f}"]
    assert row[7] == f"{(0.75 + 9 * 2 / 5) / 10:.3f}"
    assert row[8:] == ["3", "4"]


def test_faults_are_counted():
    head, row = tables(page(scored("one")))["Faults of objects"]
    assert head == ["Stack", "missed", "split", "joined", "spurious", "rough"]
    # exactly half of object 2 is found, which covers it no more than it misses it; object 5 is where nothing is drawn
    assert row == ["one", "1", "0", "0", "1", "0"]


def test_partitions_and_classes():
    found = tables(page(scored("one"), scored("two")))
    one = scored("one").metrics.instances
    kinds = one.v_rand, one.v_info, one.variation_of_information
    parts = [part for score in kinds for part in (score.value, score.split, score.merge)] + [one.adapted_rand_error]
    assert found["Partition of the foreground"][1] == ["one", *(f"{part:.3f}" for part in parts)]
    rows = found["Pixels of each class"]
    assert [row[:2] for row in rows[1:]] == [[n, c] for n in ("one", "two") for c in ("background", "cell")]
    # cell: 70 px of the reference, 70 found, 60 shared
    assert rows[2][2:] == [f"{120 / 140:.3f}", f"{60 / 80:.3f}", f"{60 / 70:.3f}", f"{60 / 70:.3f}", "70"]


def test_pixels_of_all_classes_and_their_confusion():
    found = tables(page(scored("one"), scored("two")))
    # background: 30 px of the reference, 20 of them right; cell: 70 px, 60 of them right
    assert found["Pixels of all classes"][1][:4] == [
        "one",
        "0.800",
        f"{(2 / 3 + 6 / 7) / 2:.3f}",
        f"{(0.5 + 0.75) / 2:.3f}",
    ]
    assert found["Pixels of all classes"][1][4:] == ["0.750", f"{(40 / 60 + 120 / 140) / 2:.3f}"]
    head, *rows = found["Confusion: pixels of each class of the reference by the class they were given"]
    assert head == ["Stack", "Class of reference", "background", "cell"]
    assert rows[0] == ["one", "background", "66.7 % 20", "33.3 % 10"]
    assert rows[3] == ["two", "cell", "14.3 % 10", "85.7 % 60"]


def test_every_stack_links_to_its_place():
    links = [(link.text, link.attributes["href"]) for link in page(scored("one"), scored("two")).all("a")]
    assert set(links) == {("one", "#stack-0"), ("two", "#stack-1")}


def test_every_score_is_explained():
    found = page(scored("one"))
    terms = " ".join(element.text for element in found.all("dt"))
    for name in ("F1", "SEG", "AP", "missed", "joined", "V_rand", "V_info", "VI", "adapted Rand error", "Dice", "IoU"):
        assert name in terms
    assert all(len(element.text) > 40 for element in found.all("dd"))
    assert "hidden test sets" in found.text


def test_isbi_has_its_best_thresholds():
    rng = np.random.default_rng(0)
    probability = np.clip((TRUTH > 0) * 0.7 + rng.random(TRUTH.shape) * 0.25, 0, 1).astype(np.float32)
    isbi = combine_planes([isbi_scores(probability, TRUTH)]).as_dict()
    rows = tables(page(scored("one", isbi)))["As in ISBI 2012"]
    assert len(rows) == 7
    best = isbi["v_rand"]
    values = [f"{best['value']:.4f}", f"{best['threshold']:.1f}", f"{best['split']:.4f}", f"{best['merge']:.4f}"]
    assert rows[1] == ["one", "V_rand, thinned", *values]
    assert rows[-1][:2] == ["one", "splits and mergers"]
    assert rows[-1][-2:] == ["–", "–"]


def test_skipped_isbi_says_why():
    found = page(scored("one", {"skipped": "planes of 9 x 9 px are larger"}))
    assert "one: no ISBI scores, planes of 9 x 9 px are larger." in found.text
    assert "As in ISBI 2012" not in tables(found)


def test_scores_without_meaning_are_dashes():
    empty = np.zeros((4, 4), int)
    found = tables(page(scored("one", truth=empty, found=empty)))
    assert found["Instances"][1] == ["one", *7 * ["–"], "0", "0"]
    assert found["Pixels of each class"][2][2:] == ["–", "–", "–", "–", "0"]


def test_stacks_that_training_has_seen_are_marked():
    found = page(scored("one", role="validation"), scored("two"))
    assert [row[0] for row in tables(found)["Instances"][1:]] == ["one (validation)", "two"]
    assert "do not tell how it does on images it has not seen" in found.text
    assert "do not tell how" not in page(scored("two")).text


def test_no_scores():
    assert "No stack of this run was scored" in page(SimpleNamespace(name="a", metrics=None)).text


def test_mean_average_precision():
    values = {"0.50": 0.5, "0.55": 0.25, "0.60": None}
    ap = {threshold: SimpleNamespace(average_precision=value) for threshold, value in values.items()}
    assert mean_average_precision(SimpleNamespace(ap=ap)) is None
    del ap["0.60"]
    assert mean_average_precision(SimpleNamespace(ap=ap)) == pytest.approx(0.375)
