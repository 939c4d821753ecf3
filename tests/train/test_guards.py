import os
import signal
import threading
import warnings

import pytest
import torch

from unet_pipeline.errors import PipelineError
from unet_pipeline.model.device import explain_memory
from unet_pipeline.train.guards import Termination, reproducible


def test_reproducible_sets_and_puts_back():
    def settings():
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.allow_tf32,
            torch.utils.deterministic.fill_uninitialized_memory,
        )

    before, random = settings(), torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError), reproducible(threads=3):
            assert settings() == (3, True, False, False)
            torch.manual_seed(1)
            raise ValueError
    assert settings() == before
    assert torch.equal(torch.get_rng_state(), random)


def test_termination_notes_sigterm_and_puts_the_handler_back():
    before = signal.getsignal(signal.SIGTERM)
    with Termination() as termination:
        assert not termination.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert termination.requested
    assert signal.getsignal(signal.SIGTERM) == before


def test_termination_is_harmless_outside_the_main_thread():
    seen = []

    def work():
        with Termination() as termination:
            seen.append(termination.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_full_gpu_names_the_key():
    with pytest.raises(PipelineError) as caught, explain_memory("train.tile_px", "lower train.tile_px"):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB\nmore")
    assert "train.tile_px" in str(caught.value)
    assert "20.00 GiB" in caught.value.got
    assert "more" not in str(caught.value)
