"""What `prove` promises, on small networks of every kind, and on the kernels of other processors."""

import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chain import make_model, make_plan, make_stack, settings

from unet_pipeline.config.sections import Predict
from unet_pipeline.predict import predict as module
from unet_pipeline.predict.forward import Forward
from unet_pipeline.predict.predict import predict

KEEP = (32, 44)
"""Divides neither the image, 100 x 130 px, nor all of the shards below."""

SPLITS = [(64, 1), (64, 5), (32, 3), (96, 2), (160, 1)]
"""Shard size, px, and regions."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return make_stack(folder), make_model(folder / "model")


def volume(stack_plan):
    """All that is stored: probabilities and classes as bytes."""
    every = slice(0, 100), slice(0, 130)
    arrays = stack_plan.probabilities(), stack_plan.labels("classes")
    return [array.read(plane, *every).tobytes() for plane in range(2) for array in arrays]


@pytest.mark.parametrize("mirror", ["none", "flips"])
def test_every_split_stores_the_same_bytes(made, mirror, monkeypatch):
    """Shards, regions, batches and a job that was cut off: one window shape, one result."""
    (stack, model), found, real, shapes = made, [], Forward.probabilities, set()
    monkeypatch.setattr(
        Forward, "probabilities", lambda self, logits: shapes.add(tuple(logits.shape)) or real(self, logits)
    )
    splits = SPLITS if mirror == "none" else SPLITS[1::2]
    for batch, (shard_px, regions) in enumerate(splits, 1):
        config = settings(
            store={"chunk_px": 32, "shard_px": shard_px},
            predict={"batch": batch, "probabilities": "float16", "mirror": mirror},
        )
        made_plan = make_plan(stack, config, regions)
        stack_plan = replace(made_plan, plan=replace(made_plan.plan, keep=KEEP))
        for region in range(regions):
            record = stack_plan.region_record(region)
            for left in record.parent.glob(f"*{region}.json*"):
                left.unlink()
            cut_off(monkeypatch, stack_plan, region, model, config)
            predict(stack_plan, region, model, config, record)
        found.append(volume(stack_plan))
    assert all(one == found[0] for one in found[1:])
    assert shapes == {(2, 1, *KEEP)}, "vectorised exponentials differ in the last bits at the end of an array"


def cut_off(monkeypatch, stack_plan, region, model, config):
    """Let a job die in its second shard."""
    real, calls = module.predict_shard, []

    def dies(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(module, "predict_shard", dies)
        try:
            predict(stack_plan, region, model, config, stack_plan.region_record(region))
        except KeyboardInterrupt:
            return
    stack_plan.region_record(region).unlink()


@pytest.mark.parametrize(
    ("device", "batch", "passes"), [("cpu", 3, [1] * 4), ("cuda", 3, [3, 3]), ("cuda", 1, [1] * 4)]
)
def test_every_pass_has_one_shape(made, device, batch, passes):
    """A pass of fewer windows is filled up on a GPU; a CPU takes one at a time."""
    stack, model = made
    forward, seen = Forward.load(model, stack, Predict(batch=batch), settings().compute), []
    windows = list(torch.rand(4, 1, 1, 72, 72, generator=torch.Generator().manual_seed(0)))
    one_by_one = torch.cat([forward([window]) for window in windows])

    def network(values):
        seen.append(len(values))
        return torch.cat([forward.network(value[None]) for value in values])

    answers = replace(forward, network=network, device=torch.device(device))(windows)
    assert seen == passes
    assert torch.equal(answers, one_by_one)


KERNELS = """
import json, sys
from pathlib import Path
from test_exactness import fingerprint, proofs
folder, names = Path(sys.argv[1]), sys.argv[2:]
print(json.dumps({"rows": proofs(folder, names), "bits": fingerprint(folder, names)}))
"""

NETWORKS = {
    "unpadded, depth 2": {"depth": 2, "base_channels": 4},
    "unpadded, depth 4, 2 channels": {"depth": 4, "base_channels": 2},
    "padded, strided, batch norm": {
        "depth": 2,
        "base_channels": 2,
        "padded": True,
        "down": "stride",
        "batch_norm": True,
    },
    "padded, bilinear, odd channels": {"depth": 2, "base_channels": 3, "padded": True, "up": "bilinear"},
    "half, residual, narrow": {
        "depth": 2,
        "base_channels": 4,
        "padded": True,
        "stem": "half",
        "residual": True,
        "widest": 6,
    },
    "half, unpadded": {"depth": 1, "base_channels": 4, "stem": "half"},
}


def networks(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Write the models of these names, with random weights."""
    return {name: make_model(folder / f"model {at}", network=NETWORKS[name]) for at, name in enumerate(names)}


def proofs(folder: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Prove several networks; return the verdict and the rows of each proof."""
    from unet_pipeline.audit.prove import prove

    stack, config, rows = make_stack(folder), settings(predict={"probabilities": "float16"}), {}
    for name, model in networks(folder, names).items():
        found = prove(model, stack, config, None, crop_px=70)
        rows[name] = [found.seamless, *map(asdict, found.rows)]
    return rows


def fingerprint(folder: Path, names: Sequence[str]) -> str:
    """Return a digest of the last bits of the logits of several networks."""
    from unet_pipeline.audit.prove import whole_pass
    from unet_pipeline.objects.box import Box
    from unet_pipeline.predict.crop import Crop

    bits, stack = hashlib.sha256(), make_stack(folder)
    for model in networks(folder, names).values():
        forward = Forward.load(model, stack, Predict(), settings().compute)
        bits.update(whole_pass(Crop(stack.image, Box.of(0, slice(0, 70), slice(0, 70))), forward).tobytes())
    return bits.hexdigest()


def proved_with(one_dnn: str, aten: str, folder: Path, names: Sequence[str]) -> str:
    """Check the promise where oneDNN and ATen are told to use fewer instructions; return the fingerprint there."""
    told = {"ONEDNN_MAX_CPU_ISA": one_dnn, "ATEN_CPU_CAPABILITY": aten, "OMP_NUM_THREADS": "1"}
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    ran = subprocess.run(
        [sys.executable, "-c", KERNELS, str(folder), *names],
        env={**os.environ, **told, "PYTHONPATH": here}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    for name, (verdict, *rows) in found["rows"].items():
        assert verdict, (name, rows)
        assert len(rows) >= 2
        for row in rows:
            assert row["largest_difference_std"] < 1e-4, (name, row)
            assert row["flipped_labels"] == row["stored_flipped"] == row["split_differences"] == 0
            assert row["stored_difference"] < 1e-3
            assert row["splits"] == 1
    return str(found["bits"])


@pytest.mark.slow
def test_the_promise_holds_on_another_processors_kernels(tmp_path):
    names = list(NETWORKS)[:1]
    bits = proved_with("SSE41", "default", tmp_path / "there", names)
    if platform.machine() in ("x86_64", "AMD64"):
        assert bits != fingerprint(tmp_path / "here", names), "the same kernels were used, so these were not told"


@pytest.mark.slow
def test_the_promise_holds_for_every_network_on_two_sets_of_kernels(tmp_path):
    kernels = ("SSE41", "default"), ("AVX2", "avx2")
    found = [proved_with(one_dnn, aten, tmp_path / aten, list(NETWORKS)) for one_dnn, aten in kernels]
    assert found[0] != found[1] or platform.machine() not in ("x86_64", "AMD64")
