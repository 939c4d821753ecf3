"""Weights and cards that were forged: refused in one message, and nothing in them runs."""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import pytest
from chain import make_model
from forged import SMALL, Touch
from fuzz.worker import _peak, _reset_peak, _resident

from unet_pipeline.errors import LONGEST, PipelineError
from unet_pipeline.records.files import sha256_file
from unet_pipeline.records.record import read_json, write_json


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


def forged(model: Path, folder: Path, weights: bytes | None = None, **changes: object) -> Path:
    """Copy a model folder with other weights or facts, and the checksums a forger would write."""
    facts = read_json(model / "model.json") | changes
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(
        (model / "weights.safetensors").read_bytes() if weights is None else weights
    )
    facts["weights_sha256"] = sha256_file(folder / "weights.safetensors")
    if "card_digest" in facts:
        from unet_pipeline.records.files import digest

        facts["card_digest"] = digest({name: part for name, part in facts.items() if name != "card_digest"})
    write_json(folder / "model.json", facts)
    return folder


def header(facts: object, length: int | None = None) -> bytes:
    text = json.dumps(facts).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text


WEIGHTS = {
    "a long header": header({}, 2**60),
    "a huge tensor": header({"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}),
    "offsets that wrap": header({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 0]}}) + bytes(8),
    "overlap": header({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}) + bytes(8),
    "nothing": b"",
    "deep": header({}, 100_000) + b"[" * 100_000,
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_forged_weights(tmp_path, model, kind):
    import torch

    from unet_pipeline.model.models import load_model

    held = _resident()
    _reset_peak()
    with pytest.raises(PipelineError, match="safetensors"):
        load_model(forged(model, tmp_path / "m", WEIGHTS[kind]), torch.device("cpu"))
    assert _peak() - held < SMALL


def test_no_pickle_in_weights(tmp_path, model):
    import torch

    from unet_pipeline.model.models import load_model

    saved = tmp_path / "saved.pt"
    torch.save({"a": Touch(tmp_path / "pwned")}, saved)
    for number, data in enumerate((saved.read_bytes(), pickle.dumps(Touch(tmp_path / "pwned")))):
        with pytest.raises(PipelineError, match="a safetensors file"):
            load_model(forged(model, tmp_path / f"m{number}", data), torch.device("cpu"))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {
            "architecture": {
                "network": "unet",
                "depth": 6,
                "base_channels": 256,
                "in_channels": 1024,
                "classes": 2,
                "dropout": 0.5,
            }
        },
        {"architecture": {"network": "unet", "depth": 10**9}},
        {"architecture": None},
        {"classes": ["a"] * 10**5},
        {"classes": [["a"]]},
        {"normaliser": {"offset": [1e308] * 10**4, "scale": []}},
        {"geometry": 7},
        {"training": []},
        {"normalise": {"method": ["percentile"]}},
    ],
)
def test_forged_cards(tmp_path, model, changes):
    import torch

    from unet_pipeline.model.models import load_model

    held = _resident()
    _reset_peak()
    with pytest.raises(PipelineError) as caught:
        load_model(forged(model, tmp_path / "m", **changes), torch.device("cpu"))
    assert _peak() - held < SMALL
    assert len(str(caught.value)) < 4 * LONGEST
