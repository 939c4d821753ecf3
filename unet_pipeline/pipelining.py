"""Work side by side that keeps its order: items made ahead of their consumer, results put away behind their maker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

A = TypeVar("A")
B = TypeVar("B")


def ahead(function: Callable[[A], B], items: Iterable[A], depth: int = 1) -> Generator[tuple[A, B], None, None]:
    """Yield `(item, function(item))` in order, while a thread works on the next `depth` items.

    Raises:
        Exception: whatever `function` raises, when its item's turn comes.
    """
    pool = ThreadPoolExecutor(1, "ahead")
    waiting: deque[tuple[A, Future[B]]] = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > depth:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def behind(function: Callable[..., None]) -> Iterator[Callable[..., None]]:
    """Give a function that runs `function(*arguments)` in a thread; a call waits for the one before it.

    So at most one call is unfinished, and all are when the block ends well.

    Raises:
        Exception: whatever `function` raises, at the next call or at the end of the block.
    """
    last: list[Future[None]] = []
    with ThreadPoolExecutor(1, "behind") as pool:

        def soon(*arguments: Any) -> None:
            if last:
                last.pop().result()
            last.append(pool.submit(function, *arguments))

        yield soon
        if last:
            last.pop().result()
