"""Guards around a training: fixed arithmetic, and a polite end on SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

import torch


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Make torch give the same bits again within the block: fixed threads, deterministic kernels, no TF32.

    torch's settings and its random state are put back at the end.

    Args:
        threads: CPU threads; their number changes the order of float32 sums.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when CUDA starts
    cudnn = torch.backends.cudnn
    determinism: Any = torch.utils.deterministic  # its flag is hidden from type checkers
    before = torch.get_num_threads(), torch.get_rng_state(), torch.get_deterministic_debug_mode()
    flags = cudnn.benchmark, cudnn.allow_tf32, determinism.fill_uninitialized_memory
    try:
        torch.set_num_threads(threads)
        # as use_deterministic_algorithms(True, warn_only=True), which also imports the compiler, for seconds
        torch.set_deterministic_debug_mode("warn")
        # filling new tensors with NaN finds mistakes but costs time, and no result depends on it
        cudnn.benchmark, cudnn.allow_tf32, determinism.fill_uninitialized_memory = False, False, False
        yield
    finally:
        cudnn.benchmark, cudnn.allow_tf32, determinism.fill_uninitialized_memory = flags
        torch.set_deterministic_debug_mode(before[2])
        torch.set_rng_state(before[1])
        torch.set_num_threads(before[0])


class Termination:
    """Notes SIGTERM (a job cancelled, a wall-time limit) so that the work can end where it is whole.

    Attributes:
        requested: whether SIGTERM has come. Outside the main thread it never does: Python allows no handler there.
    """

    def __init__(self) -> None:
        """Nothing has been requested yet."""
        self.requested = False
        self._former: Any = None

    def __enter__(self) -> Termination:
        """Catch SIGTERM from now on."""
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put the former handler back."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._former)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
