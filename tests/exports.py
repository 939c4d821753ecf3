"""What the tests of exports and of packages share."""

import json
from dataclasses import replace

from unet_pipeline.model.card import Architecture, ModelCard

SHAPES = ((1, 2, 108, 124), (3, 2, 116, 100))


def card_of(**changes):
    return replace(ModelCard(Architecture("unet", 1, 2, 1, 2), ("background", "cell")), **changes)


def check_facts(found, card, output="logits"):
    assert json.loads(found["classes"]) == list(card.classes)
    assert json.loads(found["normalise"])["method"] == card.normalise.method
    assert json.loads(found["geometry"]) == {
        "stride": 8,
        "before": 44,
        "after": 48,
        "lost": 88,
        "crop_px": 0,
        "whole_plane": False,
    }
    assert json.loads(found["size"])["step_px"] == 8
    assert json.loads(found["output"]) == output
    assert found["weights_sha256"] == card.weights_sha256
