"""Settings of test-time training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ttt_kd_ros.errors import InputError

MODES = ("off", "offline", "online")
SCOPES = ("norm", "encoder", "decoder", "all")
OPTIMIZERS = ("adam", "adamw", "sgd")
MAX_STEPS = 1000


@dataclass(frozen=True)
class AdaptationSettings:
    """How a network is adapted to a scan.

    Parameters
    ----------
    mode
        ``off``: the source model predicts. ``offline``: the weights go back to the source model after each scan.
        ``online``: they are kept for the next scan.
    steps
        Gradient steps on each scan.
    scope
        Parameters of the backbone that move: ``norm`` (scale and shift of the batch norms), ``encoder`` (stem and
        encoder), ``decoder`` or ``all``. The heads never move.
    optimizer
        ``adam``, ``adamw`` or ``sgd``.
    learning_rate
        Learning rate of the optimizer.
    budget_ms
        No step starts once the steps on this scan have taken so long; 0 is no limit.
    entropy_weight
        Weight of the mean entropy of the predictions beside the distillation loss.
    min_pairs
        A scan with fewer paired points is not adapted to.
    margin_m
        Steps run on the voxels within at least this horizontal distance of a paired point.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    mode: str = "online"
    steps: int = 5
    scope: str = "norm"
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    budget_ms: float = 0.0
    entropy_weight: float = 0.2
    min_pairs: int = 100
    margin_m: float = 4.0

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("mode", self.mode, MODES),
            ("scope", self.scope, SCOPES),
            ("optimizer", self.optimizer, OPTIMIZERS),
        ):
            if value not in choices:
                raise InputError(f"adaptation {name} '{value}' is unknown; choose one of {', '.join(choices)}")
        if not 0 <= self.steps <= MAX_STEPS:
            raise InputError(f"adaptation steps must be 0 to {MAX_STEPS}, not {self.steps}")
        for name in ("learning_rate", "budget_ms", "entropy_weight", "min_pairs", "margin_m"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"adaptation {name} must be a finite number that is not negative, not {value}")
