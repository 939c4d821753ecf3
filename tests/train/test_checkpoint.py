import pytest
import torch

from unet_pipeline.errors import PipelineError
from unet_pipeline.train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

TENSORS = {
    "model.a": torch.randn(3, 2, 3, 3).to(memory_format=torch.channels_last),
    "momentum.a": torch.randn(7).bfloat16(),
    "best.count": torch.tensor(5),
}
STATE = {"step": 3, "digest": "x", "losses": [0.1, 1 / 3], "best_value": [0.5, -0.1]}


@pytest.fixture
def path(tmp_path):
    write_checkpoint(tmp_path / "deep" / "state.safetensors", Checkpoint(TENSORS, STATE))
    return tmp_path / "deep" / "state.safetensors"


def test_a_checkpoint_is_read_as_written(path):
    checkpoint = read_checkpoint(path)
    assert checkpoint.state == STATE
    assert set(checkpoint.tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(checkpoint.tensors[name], tensor)
        assert checkpoint.tensors[name].dtype == tensor.dtype
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_any_changed_byte_is_noticed(path):
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        altered = bytearray(data)
        altered[place] ^= 4
        path.write_bytes(altered)
        with pytest.raises(PipelineError):
            read_checkpoint(path)


@pytest.mark.parametrize("length", [0, 5, 100, -1])
def test_a_file_cut_short_is_noticed(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(PipelineError, match=r"state\.safetensors"):
        read_checkpoint(path)


def test_a_full_disk_leaves_the_former_checkpoint(path, monkeypatch):
    def full(self, data):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(PipelineError, match="free space"):
        write_checkpoint(path, Checkpoint({}, {}))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_same_state_gives_the_same_bytes(path):
    written = set()
    for _ in range(20):  # two entries in the header would change places at random
        write_checkpoint(path, Checkpoint(TENSORS, STATE))
        written.add(path.read_bytes())
    assert len(written) == 1
