import math
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from unet_pipeline.config.sections import Compute
from unet_pipeline.errors import PipelineError
from unet_pipeline.machine.gpus import free_gpu, held_gpu
from unet_pipeline.model import device
from unet_pipeline.model.card import Architecture, ModelCard, read_card, write_card
from unet_pipeline.model.device import Compiled, autocast, choose_device, has_bfloat16, usable_precision
from unet_pipeline.model.models import build, load_model, save_model
from unet_pipeline.model.networks.blocks import centre_crop

SMALL = Architecture("unet", 2, 4, 1, 2, 0.0)
CARD = ModelCard(SMALL, ("background", "cell"))


def test_the_papers_network_has_31_030_658_parameters():
    with torch.device("meta"):
        network = build_uninitialised(Architecture())
    assert sum(parameter.numel() for parameter in network.parameters()) == 31_030_658


def build_uninitialised(architecture):
    from unet_pipeline.model.models import NETWORKS

    return NETWORKS[architecture.network](architecture)


@pytest.mark.parametrize(("depth", "read_px", "output_px"), [(4, 572, 388), (4, 188, 4), (3, 252, 164), (1, 22, 6)])
def test_sizes_of_the_paper(depth, read_px, output_px):
    network = build(Architecture("unet", depth, 1))
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, read_px, read_px)).shape == (1, 2, output_px, output_px)


def test_height_and_width_may_differ():
    assert build(SMALL)(torch.zeros(2, 1, 44, 60)).shape == (2, 2, 4, 20)


def test_forward_is_figure_1_written_out_by_hand():
    """Depth 1, straight from the figure, with the network's own tensors."""
    network = build(Architecture("unet", 1, 3, 1, 2, 0.0)).eval()
    t = network.state_dict()
    image = torch.rand(1, 1, 22, 22)

    def twice(x, name):
        x = functional.conv2d(x, t[f"{name}.0.weight"], t[f"{name}.0.bias"]).clamp(min=0)
        return functional.conv2d(x, t[f"{name}.2.weight"], t[f"{name}.2.bias"]).clamp(min=0)

    top = twice(image, "contracting.0")  # 18
    bottom = twice(top.reshape(1, 3, 9, 2, 9, 2).amax((3, 5)), "contracting.1")  # 5
    # a 2x2 up-convolution: each pixel becomes a 2x2 block
    up = torch.einsum("nchw,cdij->ndhiwj", bottom, t["up.0.weight"]).reshape(1, 3, 10, 10)
    up = up + t["up.0.bias"][:, None, None]
    level = twice(torch.cat([top[:, :, 4:14, 4:14], up], 1), "expanding.0")  # 6
    expected = torch.einsum("nchw,dc->ndhw", level, t["head.weight"][:, :, 0, 0]) + t["head.bias"][:, None, None]
    torch.testing.assert_close(network(image), expected, atol=1e-5, rtol=1e-5)


def test_the_output_is_centred_on_the_input():
    """The output pixel (i, j) depends on input pixels around (i + before, j + before), alike on all sides."""
    network = build(SMALL).eval()
    image = torch.rand(1, 1, 60, 60, requires_grad=True)
    network(image)[..., 8:12, 8:12].sum().backward()
    rows = image.grad[0, 0].abs().sum(1).nonzero().flatten()
    first, last = int(rows[0]), int(rows[-1])
    before = network.geometry.before
    assert first >= 8
    assert last <= 11 + 2 * before
    assert abs((first + last) / 2 - (9.5 + before)) <= 2


def test_shifting_by_the_stride_shifts_the_output():
    network = build(SMALL).eval()
    image = torch.rand(1, 1, 64, 64)
    whole = network(image)
    torch.testing.assert_close(network(image[..., 4:, 8:]), whole[..., 4:, 8:], atol=1e-6, rtol=1e-5)


def test_centre_crop():
    skip = torch.arange(36.0).reshape(1, 1, 6, 6)
    torch.testing.assert_close(centre_crop(skip, torch.zeros(1, 5, 2, 4)), skip[:, :, 2:4, 1:5])


@pytest.mark.parametrize(("read_px", "nearest"), [(45, 44), (47, 48), (571, 572), (3, 44)])
def test_an_illegal_size_is_refused_with_the_nearest_legal_one(read_px, nearest):
    with pytest.raises(PipelineError, match=f"nearest legal value: {nearest}"):
        build(SMALL)(torch.zeros(1, 1, 44, read_px))


def test_other_channels_are_refused():
    with pytest.raises(PipelineError, match=r"\(n, 1, y, x\)"):
        build(SMALL)(torch.zeros(1, 3, 44, 44))


def test_he_initialisation():
    network = build(Architecture("unet", 2, 32), seed=1)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() > 4000:
            # nodes that feed one output pixel: counted by a pass over ones with kernels of ones
            kernel = torch.ones_like(module.weight)
            apply = torch.conv2d if isinstance(module, nn.Conv2d) else torch.conv_transpose2d
            ones = torch.ones(1, module.in_channels, 8, 8)
            incoming = apply(ones, kernel, stride=module.stride)[0, 0].max().item()
            expected = math.sqrt(2 / incoming)
            assert abs(module.weight.std().item() / expected - 1) < 0.05
            assert abs(module.weight.mean().item()) < 0.05 * expected
            assert (module.bias == 0).all()


def test_the_seed_decides_the_weights_and_leaves_the_callers_random_state_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, again, other = (build(SMALL, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert torch.equal(torch.get_rng_state(), state)


def test_dropout_acts_on_the_last_two_contracting_levels_and_on_the_skip():
    network = build(Architecture("unet", 2, 4, dropout=0.5)).train()
    seen = []
    network.dropout.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    joined = []
    network.expanding[0].register_forward_hook(lambda _, inputs, output: joined.append(inputs[0]))
    network(torch.rand(1, 1, 60, 60))
    assert [before.shape[1] for before, _ in seen] == [8, 16]
    assert (seen[0][1] == 0).sum() > (seen[0][0] == 0).sum() + 0.3 * seen[0][0].numel() * 0.5
    torch.testing.assert_close(joined[0][:, :8], centre_crop(seen[0][1], joined[0]))
    network.eval()
    image = torch.rand(1, 1, 44, 44)
    assert torch.equal(network(image), network(image))


# the folder of a model


@pytest.fixture
def folder(tmp_path):
    save_model(tmp_path, build(SMALL, 4), CARD)
    return tmp_path


def test_a_model_is_loaded_as_saved(folder):
    network, card = load_model(folder, torch.device("cpu"))
    original = build(SMALL, 4)
    assert not network.training
    assert card.architecture == SMALL
    assert card.classes == CARD.classes
    for name, tensor in original.state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor)
    image = torch.rand(1, 1, 44, 44)
    assert torch.equal(network(image), original.eval()(image))


def test_the_same_weights_give_the_same_bytes_whatever_the_memory_format(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    save_model(other, build(SMALL, 4).to(memory_format=torch.channels_last), CARD)
    for name in ("weights.safetensors", "model.json"):
        assert (other / name).read_bytes() == (folder / name).read_bytes()


def test_no_file_is_left_beside_the_two(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "weights.safetensors"]


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(PipelineError, match=name):
        load_model(folder, torch.device("cpu"))


def test_altered_weights_are_noticed(folder):
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(PipelineError, match="altered"):
        load_model(folder, torch.device("cpu"))


def test_weights_of_another_architecture_are_noticed_and_the_tensors_named(folder):
    card = read_card(folder)
    write_card(folder, replace(card, architecture=replace(card.architecture, base_channels=5)))
    with pytest.raises(PipelineError, match=r"contracting\.0\.0\.bias \(5,\).*instead.*contracting\.0\.0\.bias \(4,\)"):
        load_model(folder, torch.device("cpu"))


def test_a_failed_save_leaves_no_card_that_promises_other_weights(folder, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(PipelineError, match="free space"):
        save_model(folder, build(SMALL, 5), CARD)
    assert not (folder / "model.json").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["weights.safetensors"]


# the device


def test_cuda_asked_for_and_absent(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(PipelineError, match=r"compute\.device"):
        choose_device(Compute(device="cuda"))
    assert choose_device(Compute(device="auto")).type == "cpu"


def test_auto_takes_the_gpu_and_cpu_does_not(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device(Compute(device="auto")).type == "cuda"
    assert choose_device(Compute(device="cpu")).type == "cpu"


def test_jobs_side_by_side_take_different_gpus(monkeypatch, tmp_path):
    """Names are those of the GPUs, whatever number a job sees them under; the lock is that of `machine.gpus`."""
    current = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=f"GPU-{number}"))
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held_gpu.cache_clear()
    assert free_gpu(["GPU-0"], tmp_path) == 0, "another job"
    assert choose_device(Compute()) == choose_device(Compute()) == torch.device("cuda", 1)
    assert current == [torch.device("cuda", 1)] * 2, "before anything is built"
    assert choose_device(Compute(device="cpu")) == torch.device("cpu")
    held_gpu.cache_clear()
    assert choose_device(Compute()) == torch.device("cuda", 2), "this process holds number 1 still"
    held_gpu.cache_clear()
    assert choose_device(Compute()).index in (0, 1, 2), "shared where all are held"
    held_gpu.cache_clear()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(PipelineError, match=r"compute\.processes: expected 2 GPUs.*none of 3 free"):
        choose_device(Compute())


def test_precision():
    cpu = torch.device("cpu")
    image, network = torch.rand(1, 1, 44, 44), build(SMALL).eval()
    with autocast(cpu, "bfloat16"):
        assert network(image).dtype == torch.bfloat16
    with autocast(cpu, "float32"):
        assert network(image).dtype == torch.float32
    with pytest.raises(PipelineError, match=r"predict\.precision.*(?s:.*)bfloat16"):
        usable_precision(cpu, "float16", "predict.precision")


def test_a_machine_without_bfloat16_takes_float32_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(device, "has_bfloat16", lambda device: False)
    assert usable_precision(torch.device("cpu"), "bfloat16", "predict.precision") == "float32"
    assert usable_precision(torch.device("cpu"), "float32", "predict.precision") == "float32"
    assert usable_precision(torch.device("cpu"), "auto", "predict.precision") == "float32"
    assert capsys.readouterr().err == "predict.precision: this CPU does not compute in bfloat16, so float32 is used\n"


@pytest.mark.slow
def test_a_processor_without_bfloat16_is_known():
    code = """
import torch
from unet_pipeline.model.device import has_bfloat16
print(has_bfloat16(torch.device("cpu")))
"""
    old = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    ran = subprocess.run([sys.executable, "-c", code], env=old, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False"]


@pytest.mark.parametrize(("capability", "there"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_of_gpus(monkeypatch, capability, there):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert has_bfloat16(torch.device("cuda")) == there
    assert usable_precision(torch.device("cuda"), "auto", "predict.precision") == ("bfloat16" if there else "float32")


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_bits():
    network = build(SMALL).eval().to(memory_format=torch.channels_last)
    fast, said = Compiled(network), []
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "tell", said.append)
        for size in (44, 60):
            image = torch.rand(2, 1, size, size).contiguous(memory_format=torch.channels_last)
            assert torch.equal(fast(image), network(image))
    if " " in torch.__file__:
        assert [line for line in said if "has a space" not in line] == [], "why not is said"
    else:
        assert said == [], "it was really compiled"


def test_a_compilation_that_fails_is_told_once_and_the_network_runs_as_it_is(monkeypatch, capsys):
    def broken(network, dynamic):
        def run(batch):
            raise RuntimeError("no working C++ compiler found\nand much more")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(torch, "__file__", "/lab/site-packages/torch/__init__.py")
    network, image = build(SMALL).eval(), torch.rand(1, 1, 44, 44)
    fast = Compiled(network)
    for _ in range(2):
        assert torch.equal(fast(image), network(image))
    said = capsys.readouterr().err
    assert said.count("compute.compile: failed, so the network runs as it is") == 1
    assert "no working C++ compiler found" in said
    monkeypatch.setattr(torch, "__file__", "/my lab/site-packages/torch/__init__.py")
    assert torch.equal(Compiled(network)(image), network(image))
    assert "whose path has a space: /my lab/site-packages/torch" in capsys.readouterr().err


@pytest.mark.slow
def test_a_compiled_network_refuses_what_the_network_refuses():
    with pytest.raises(PipelineError, match="network input"):
        Compiled(build(SMALL).eval())(torch.rand(1, 1, 45, 45))
