"""What the stages of a scan cost, and whether one more fits before the answer is due."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable

Clock = Callable[[], float]
"""Seconds, monotonic."""
KEPT = 20
FADING = 0.995
"""By how much an estimate falls with each scan that it kept from being adapted to."""


class RunningCost:
    """How long something takes, from its latest measurements: all but the longest of twenty were shorter."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=KEPT)

    def add(self, seconds: float) -> None:
        """Take in a measurement [s]."""
        self._latest.append(seconds)

    def fade(self) -> None:
        """Believe in a little less, so that a slow moment is tried again some day."""
        self._latest = deque((seconds * FADING for seconds in self._latest), maxlen=KEPT)

    @property
    def known(self) -> bool:
        """Whether there is a measurement."""
        return bool(self._latest)

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

    def add(self, stage: str, seconds: float) -> None:
        """Take in how long a stage took [s]."""
        self._costs[stage].add(seconds)

    def fade(self, *stages: str) -> None:
        """Believe stages a little cheaper, because they did not fit."""
        for stage in stages:
            self._costs[stage].fade()

    def fits(self, due: float, *stages: str) -> bool:
        """Whether stages and the final prediction end in time.

        A stage that was never measured is tried, but not before the prediction was measured.

        Parameters
        ----------
        due
            When the labels must be there, on the clock [s]; infinite if it does not matter.
        stages
            What would come before the prediction.
        """
        if due == float("inf"):
            return True
        if not self._costs["predict"].known:
            return False
        ahead = sum(self._costs[stage].estimate for stage in (*stages, "predict"))
        return self._clock() + ahead <= due
