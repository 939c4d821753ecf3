"""Threads that keep the order of the work: items are read ahead, results are written behind."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")


def cores() -> int:
    """Return how many cores this process may use: those a scheduler gave it, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(
    function: Callable[[A], B],
    items: Iterable[A],
    workers: int = 1,
    more: int = 1,
    initializer: Callable[[], object] | None = None,
) -> Generator[B, None, None]:
    """Yield function(item) in the order of the items, computed by threads while the caller works.

    Args:
        function: must not depend on anything but its argument.
        items: taken lazily.
        workers: number of threads.
        more: results computed beyond those being worked on.
        initializer: called by each thread first.

    Raises:
        Exception: whatever `function` raises, when its item's turn comes.
    """
    pool = ThreadPoolExecutor(workers, "ahead", initializer=initializer)
    waiting: deque[Future[B]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= workers + more:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def behind(function: Callable[..., None], workers: int = 1) -> Iterator[Callable[..., None]]:
    """Give a function that runs `function(*arguments)` in a thread; a call waits for the one `workers` before it.

    So at most `workers` calls are unfinished, and all are finished when the block ends well.

    Raises:
        Exception: whatever `function` raises, at a later call or at the end of the block.
    """
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(workers, "behind") as pool:

        def soon(*arguments: Any) -> None:
            if len(waiting) >= workers:
                waiting.popleft().result()
            waiting.append(pool.submit(function, *arguments))

        yield soon
        while waiting:
            waiting.popleft().result()
