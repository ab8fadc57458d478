"""What an evaluation runs: methods, numbers of steps, and which points count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.share import config_file


@dataclass(frozen=True)
class Method:
    """A name and the settings of adaptation that it stands for."""

    name: str
    settings: AdaptationSettings


@dataclass(frozen=True)
class Pair:
    """A row of a paper's table: what networks are trained on and what they are scored on.

    Parameters
    ----------
    train
        Name of the training set, which checkpoints are given by.
    test
        Test set and the words that choose its scenes, as ``ScanNet@val``.
    paper
        The paper's mIoU [%] of each method, as far as it has one.
    steps
        Numbers of steps that these are of where a method leaves them open.
    """

    train: str
    test: str
    paper: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[int, ...] = ()

    def figure(self, method: Method, steps: int) -> float | None:
        """The paper's mIoU [%] of a method at a number of steps; None where it has none."""
        return self.paper.get(method.name) if steps in (0, method.settings.steps, *self.steps) else None

    @property
    def test_set(self) -> str:
        """Name of the test set, which data are given by."""
        return self.test.partition("@")[0]


@dataclass(frozen=True)
class Protocol:
    """How methods are scored.

    Parameters
    ----------
    methods
        What is scored; where a method leaves the steps open (-1), it is scored at each of `steps`.
    steps
        Numbers of gradient steps on each scan, rising.
    max_range_m
        Points farther from the sensor do not count; 0 counts all.
    classes
        Classes whose mean is the score; empty for all that the ground truth holds.
    pairs
        Rows of the paper's table that the protocol repeats; none for a protocol of its own.
    paper
        Where the paper's figures are from.

    Raises
    ------
    InputError
        If there is no method, two have the same name or a value is out of range.
    """

    methods: tuple[Method, ...]
    steps: tuple[int, ...] = (10,)
    max_range_m: float = 0.0
    classes: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    paper: str = ""

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        if not names or len(set(names)) < len(names):
            raise InputError("a protocol needs methods with names that differ")
        if not self.steps or min(self.steps) < 1 or list(self.steps) != sorted(set(self.steps)):
            raise InputError(f"the protocol's steps {list(self.steps)} must be positive and rising")
        if not self.max_range_m >= 0:
            raise InputError(f"the protocol's max_range_m is {self.max_range_m}; it cannot be negative")
        if self.pairs and (self.max_range_m or self.classes):
            raise InputError("a protocol with pairs counts all points and classes; leave out max_range_m and classes")

    @property
    def source(self) -> str:
        """Name of the method that is the source model, which gains are taken over; empty without one."""
        return next((method.name for method in self.methods if method.settings.mode == "off"), "")

    def check_classes(self, checkpoint: Path, known: ClassList) -> None:
        """Refuse a checkpoint that does not predict the protocol's classes.

        Raises
        ------
        InputError
            With both lists.
        """
        if missing := [name for name in self.classes if name not in known.names]:
            raise InputError(
                f"{checkpoint} does not predict {', '.join(missing)}: the protocol scores {', '.join(self.classes)}, "
                f"the checkpoint predicts {', '.join(known.names)}; choose another protocol or checkpoint"
            )

    def counts(self, method: Method) -> tuple[int, ...]:
        """Numbers of steps at which a method is scored."""
        if method.settings.mode == "off":
            return (0,)
        return self.steps if method.settings.steps < 0 else (method.settings.steps,)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; of each method what differs from the defaults."""
        default = AdaptationSettings()
        methods = {
            method.name: {
                f.name: getattr(method.settings, f.name)
                for f in fields(default)
                if getattr(method.settings, f.name) != getattr(default, f.name)
            }
            for method in self.methods
        }
        plain = {"steps": list(self.steps), "max_range_m": self.max_range_m, "classes": list(self.classes)}
        return {"methods": methods, **plain}


def load_protocol(name: str | Path) -> Protocol:
    """Protocol from a YAML file or one of the installed ones (``config/evaluation``).

    Raises
    ------
    InputError
        If it does not exist, names an unknown key or a value is out of range.
    """
    path = config_file("evaluation", name)
    try:
        values: dict[str, Any] = dict(yaml.safe_load(path.read_text()))
        methods = tuple(_method(name, given) for name, given in dict(values.pop("methods")).items())
        steps, classes = tuple(values.pop("steps", (10,))), tuple(values.pop("classes", ()))
        pairs = tuple(Pair(**pair, steps=steps) for pair in values.pop("pairs", ()))
        return Protocol(methods, steps, classes=classes, pairs=pairs, **values)
    except (InputError, TypeError, ValueError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {error}") from error


def narrowed(protocol: Protocol, methods: Sequence[str] | None, steps: Sequence[int] | None) -> Protocol:
    """Some methods of a protocol, at other numbers of steps; None keeps the protocol's.

    Raises
    ------
    InputError
        If it has no such method or the steps do not rise.
    """
    known = {method.name: method for method in protocol.methods}
    unknown = set(methods or ()) - known.keys()
    if unknown:
        raise InputError(f"the protocol has no method {', '.join(sorted(unknown))}, only {', '.join(known)}")
    chosen = tuple(known[name] for name in methods) if methods else protocol.methods
    return replace(protocol, methods=chosen, steps=tuple(steps) if steps else protocol.steps)


def _method(name: str, given: Mapping[str, Any] | None) -> Method:
    unknown = set(given or {}) - {f.name for f in fields(AdaptationSettings)}
    if unknown:
        raise InputError(f"method '{name}' has unknown settings: {', '.join(sorted(unknown))}")
    return Method(str(name), AdaptationSettings(**(given or {})))
