"""The clock of a budget."""

from __future__ import annotations

import math
from collections.abc import Callable

from comparison.variants import Budget


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the seconds that `work` takes by a clock."""
    began = clock()
    work()
    return clock() - began


class Clock:
    """What the steps of a peer's training have used of a budget, and the learning rate that follows it."""

    def __init__(self, budget: Budget, step_px: int) -> None:
        """Begin with nothing used; a step of theirs learns from `step_px` pixels of output."""
        self.steps, self.seconds, self.budget = 0, 0.0, budget
        self._px, self._began = step_px, 0.0

    @property
    def seen_px(self) -> int:
        """Pixels of output learned from."""
        return self.steps * self._px

    @property
    def share(self) -> float:
        """The used share of the budget; 1 and more: it is used up."""
        if self.budget.seconds is None:
            return self.seen_px / (self.budget.steps * self.budget.reference_px**2)
        return self.seconds / self.budget.seconds

    @property
    def rate(self) -> float:
        """Share of the peak learning rate: a short rise, then a cosine to 0 as the budget is used."""
        return min(1.0, self.share / 0.03 + 0.01) * 0.5 * (1 + math.cos(math.pi * min(1.0, self.share)))

    def begin(self) -> None:
        """Begin a step."""
        self._began = self.budget.clock()

    def end(self) -> None:
        """End a step."""
        self.seconds += self.budget.clock() - self._began
        self.steps += 1
