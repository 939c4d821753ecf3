"""What a process holds after large arrays were freed by several threads."""

import subprocess
import sys

import pytest
from chain import make_model, make_stack, settings

from unet_pipeline.config.sections import Predict
from unet_pipeline.model.device import Compiled
from unet_pipeline.predict import forward as forward_module
from unet_pipeline.predict.forward import Forward

HELD = """
import sys, threading
import numpy as np
from unet_pipeline.machine import allocator

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

getattr(allocator, sys.argv[1])()
before, done, leave = resident(), threading.Barrier(7), threading.Event()

def work():
    for _ in range(4):
        np.ones(20_000_000, np.uint8)
    done.wait()
    leave.wait()

threads = [threading.Thread(target=work) for _ in range(6)]
for thread in threads:
    thread.start()
done.wait()
print(resident() - before)
leave.set()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc, and memory as Linux tells it")
@pytest.mark.parametrize(("mode", "low", "high"), [("give_back_pages", 0, 12), ("keep_pages", 18, 200)])
def test_freed_arrays_are_given_back_or_kept(mode, low, high):
    ran = subprocess.run([sys.executable, "-c", HELD, mode], capture_output=True, text=True, check=True)
    assert low <= float(ran.stdout) <= high


@pytest.mark.slow
def test_a_network_keeps_its_pages_and_is_compiled_when_asked(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(forward_module, "keep_pages", lambda: called.append(True))
    stack, model = make_stack(tmp_path), make_model(tmp_path / "model")
    for compiled in (False, True):
        config = settings(compute={"threads": 1, "device": "cpu", "compile": compiled})
        network = Forward.load(model, stack, Predict(), config.compute).network
        assert isinstance(network, Compiled) == compiled
    assert called == [True, True]


def test_a_stage_gives_pages_back_from_its_start(tmp_path, monkeypatch):
    from unet_pipeline import __main__ as command

    called = []
    monkeypatch.setattr(command, "give_back_pages", lambda: called.append(True))
    image, output = tmp_path / "none.tif", tmp_path / "ingest.json"
    assert command.main(["ingest", "--stack", "s", "--image", str(image), "--output", str(output)]) == 1
    assert called == [True]
