"""What the stages of a scan cost, and whether one more fits before the answer is due."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds, monotonic."""
KEPT = 100
FADING = 0.995
"""By how much an estimate falls with each scan that it kept from being adapted to."""


class RunningCost:
    """How long something takes, from its latest measurements: all but the longest of a hundred were shorter.

    The first measurement does not count: whatever runs for the first time is slow.
    """

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=KEPT)
        self._warm = False

    def add(self, seconds: float, cold: bool = False) -> None:
        """Take in a measurement [s]; a cold one does not count either."""
        if self._warm and not cold:
            self._latest.append(seconds)
        self._warm = True

    def fade(self) -> None:
        """Believe in a little less, so that a slow moment is tried again some day."""
        self._latest = deque((seconds * FADING for seconds in self._latest), maxlen=KEPT)

    def forget(self) -> None:
        """Know no measurement; the next one counts."""
        self._latest.clear()

    @property
    def known(self) -> bool:
        """Whether there is a measurement."""
        return bool(self._latest)

    @property
    def settled(self) -> bool:
        """Whether there are two: a single one may be of a slow moment."""
        return len(self._latest) > 1

    @property
    def estimate(self) -> float:
        """How long it takes [s]; 0 without a measurement."""
        return sorted(self._latest)[-2:][0] if self._latest else 0.0


class Pace:
    """Costs by stage, against the time at which a scan's labels are due.

    Parameters
    ----------
    clock
        Seconds, monotonic.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._costs: defaultdict[str, RunningCost] = defaultdict(RunningCost)
        self._assumed: dict[str, float] = {}
        self._growing: frozenset[str] = frozenset()

    def add(self, stage: str, seconds: float, cold: bool = False) -> None:
        """Take in how long a stage took [s], which does not count if it did for the first time what it did."""
        self._costs[stage].add(seconds, cold)

    def fade(self, *stages: str) -> None:
        """Believe stages a little cheaper, because they did not fit."""
        for stage in stages:
            self._costs[stage].fade()
            if stage in self._assumed:
                self._assumed[stage] *= FADING

    def assume(self, *growing: str) -> None:
        """Believe in what was measured until it was measured twice more; the prediction's cost is unknown until then.

        Parameters
        ----------
        growing
            Stages that grow with the scan as the prediction does: their costs are kept as multiples of its.
        """
        predict = self._costs["predict"].estimate
        self._growing = frozenset(growing)
        for stage, cost in self._costs.items():
            if stage != "predict":
                self._assumed[stage] = cost.estimate / (predict if stage in growing else 1.0)
            cost.forget()

    def fits(self, due: float, *stages: str, share: float = 1.0) -> bool:
        """Whether stages and the final prediction end in time.

        A stage that was never measured is tried, but not before the prediction was measured.

        Parameters
        ----------
        due
            When the labels must be there, on the clock [s]; infinite if it does not matter.
        stages
            What would come before the prediction.
        share
            Of the first stage's cost: how much of it would be taken.
        """
        if due == float("inf"):
            return True
        if not self._costs["predict"].known:
            return False
        spared = (1 - share) * self._estimate(stages[0]) if stages else 0.0
        return self._clock() + sum(map(self._estimate, (*stages, "predict"))) - spared <= due

    def _estimate(self, stage: str) -> float:
        cost = self._costs[stage]
        if cost.settled or stage not in self._assumed:
            return cost.estimate
        return self._assumed[stage] * (self._estimate("predict") if stage in self._growing else 1.0)
