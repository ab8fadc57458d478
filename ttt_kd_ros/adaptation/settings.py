"""Settings of test-time training."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ttt_kd_ros.errors import InputError

MODES = ("off", "offline", "online")
SCHEDULES = ("before", "background")
METHODS = ("kd", "kd-mean", "kd-permuted", "confident", "tent", "sar", "statistics")
SCOPES = ("norm", "encoder", "decoder", "lora", "all")
OPTIMIZERS = ("adam", "adamw", "sgd")
LOSSES = ("cosine", "centred-cosine", "l2")
MAX_STEPS = 1000
MAX_PARTS = 16
PARTS_IN_TIME = 3
"""Of `AdaptationSettings.decoded_parts` before a near deadline; a GPU waits for its kernels, and records each part."""
SCOPE_DEFAULT = "default"


@dataclass(frozen=True)
class ScopeDefaults:
    """What suits a scope: optimizer, learning rate and gradient steps on a scan."""

    optimizer: str
    learning_rate: float
    steps: int


DEFAULTS = {
    "norm": ScopeDefaults("adam", 2e-3, 10),
    "encoder": ScopeDefaults("adam", 1e-4, 10),
    "decoder": ScopeDefaults("adam", 1e-4, 10),
    "lora": ScopeDefaults("adam", 1e-3, 10),
    "all": ScopeDefaults("adam", 1e-4, 10),
}
"""Of each scope, chosen on `pandaset_001` and the simulated domains (docs/adaptation.md)."""


@dataclass(frozen=True)
class AdaptationSettings:
    """How a network is adapted to a scan.

    Parameters
    ----------
    mode
        ``off``: the source model predicts. ``offline``: the weights go back to the source model after each scan.
        ``online``: they are kept for the next scan.
    schedule
        ``before``: a scan is adapted to before it is labelled. ``background``: it is labelled at once, and a second
        network takes the steps beside; only with the mode ``online`` (`ttt_kd_ros.background`).
    deadline_ms
        Time from a scan's arrival to its published labels, which `before` keeps by taking fewer steps; 0 is no limit.
    method
        What the steps minimise (`ttt_kd_ros.adaptation.methods`): ``kd`` is test-time training by distillation, the
        others are what it is measured against.
    steps
        Gradient steps on each scan; -1 is the scope's default.
    scope
        Parameters of the backbone that move: ``norm`` (scale and shift of the batch norms), ``encoder`` (stem and
        encoder), ``decoder``, ``lora`` (a low-rank change of every convolution) or ``all``. The heads never
        move.
    optimizer
        ``adam``, ``adamw``, ``sgd`` or ``default``, the scope's.
    learning_rate
        Learning rate of the optimizer; 0 is the scope's default.
    budget_ms
        No step starts once the steps on this scan have taken so long; 0 is no limit.
    loss
        Distance between ρ_2D's features and the teacher's: ``cosine``, ``centred-cosine`` or ``l2``.
    entropy_weight
        Weight of the mean entropy of the predictions beside the distillation loss.
    source_weight
        Weight of the cross-entropy with the source model's confident labels: ties the adapted model to it.
    pull
        Share of the way back to the source weights that the weights go after each step: bounds how far many steps lead
        away, on one scan or on a long drive.
    collapse_share
        The weights go back to the source's if the adapted ones give more than this share of a scan one label and the
        source ones do not; 1 never.
    disagreement_share
        The weights go back to the source's if, after the steps on a scan, more than this share of the voxels near the
        view have another label than the source model gives them; 1 never.
    jump_s
        The weights go back to the source's if a scan's stamp is more than this before the last one's [s]; 0 never.
    trust
        Where the cosine of the source model's features with the teacher's is less than this share of its level in
        training, the adapted weights label only what lies near the view, and the source model the rest; 0 trusts every
        scan.
    familiar
        Where the cosine of the source model's features with the teacher's is at least this share of its level in
        training, there is nothing to learn: no step is taken and the source model labels the scan; 0 adapts to every
        scan.
    scan_statistics
        Share of the scan's own statistics in the batch norms, taken from the whole scan before the steps; 0 keeps the
        statistics of training. Needs no camera.
    min_pairs
        A scan with fewer paired points is not adapted to.
    margin_m
        Steps run on the voxels within at least this horizontal distance of a paired point.
    decoded_parts
        Each step encodes all of these voxels and decodes one of so many parts of them, in turns, and takes less time. 0
        is 3 on a CPU where the deadline leaves no time for five whole steps, and 1 elsewhere.

    Raises
    ------
    InputError
        If a value is out of its range.
    """

    mode: str = "online"
    schedule: str = "before"
    deadline_ms: float = 0.0
    method: str = "kd"
    steps: int = -1
    scope: str = "all"
    optimizer: str = SCOPE_DEFAULT
    learning_rate: float = 0.0
    budget_ms: float = 0.0
    loss: str = "cosine"
    entropy_weight: float = 0.2
    source_weight: float = 0.0
    pull: float = 0.05
    collapse_share: float = 0.98
    disagreement_share: float = 1.0
    jump_s: float = 1.0
    trust: float = 0.65
    familiar: float = 0.92
    scan_statistics: float = 0.0
    min_pairs: int = 100
    margin_m: float = 4.0
    decoded_parts: int = 0

    def __post_init__(self) -> None:
        for name, choices in (
            ("mode", MODES),
            ("schedule", SCHEDULES),
            ("method", METHODS),
            ("scope", SCOPES),
            ("optimizer", (SCOPE_DEFAULT, *OPTIMIZERS)),
            ("loss", LOSSES),
        ):
            value = getattr(self, name)
            if value not in choices:
                raise InputError(f"adaptation {name} '{value}' is unknown; choose one of {', '.join(choices)}")
        if not -1 <= self.steps <= MAX_STEPS:
            raise InputError(f"adaptation steps must be 0 to {MAX_STEPS}, or -1 for the scope's own, not {self.steps}")
        if not 0 <= self.decoded_parts <= MAX_PARTS:
            raise InputError(f"adaptation decoded_parts must be 0 to {MAX_PARTS}, not {self.decoded_parts}")
        for name in (
            "deadline_ms", "learning_rate", "budget_ms", "entropy_weight", "source_weight", "collapse_share",
            "disagreement_share", "jump_s", "trust", "familiar", "min_pairs", "margin_m",
        ):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"adaptation {name} must be a finite number that is not negative, not {value}")
        for name in ("pull", "scan_statistics"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"adaptation {name} must be a share of 0 to 1, not {getattr(self, name)}")
        if self.in_background and self.mode == "offline":
            raise InputError(
                "adaptation schedule 'background' keeps weights for later scans, which mode 'offline' does not; "
                "set mode to online or schedule to before"
            )

    @property
    def in_background(self) -> bool:
        """Whether the steps are taken beside the scans."""
        return self.schedule == "background" and self.mode != "off"

    @property
    def labels_at_once(self) -> bool:
        """Whether scans are labelled without their pictures."""
        return self.in_background or self.mode == "off"

    def resolved(self) -> AdaptationSettings:
        """The same settings with the scope's defaults written out."""
        default = DEFAULTS[self.scope]
        return replace(
            self,
            steps=default.steps if self.steps < 0 else self.steps,
            optimizer=default.optimizer if self.optimizer == SCOPE_DEFAULT else self.optimizer,
            learning_rate=self.learning_rate or default.learning_rate,
        )
