"""Whether two networks can have been adapted from the same source model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import torch

from ttt_kd_ros.model.network import Network

BACKBONE = "backbone."


def differences(network: Network, source: Network) -> list[str]:
    """What a network has that no adaptation changes and that is otherwise in `source`; empty if there is nothing.

    Shape, classes and teacher stay, and so do the weights of the heads.
    """
    shape = other_values(asdict(network.config), asdict(source.config))
    return shape or list(_different_heads(network, source))


def other_values(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Which of the expected values are others, or missing, in `found`; those of inner mappings by dotted names."""
    values = dict(_flat(found))
    return [
        f"{name} is {values.get(name)} instead of {value}"
        for name, value in _flat(expected)
        if values.get(name) != value
    ]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _different_heads(network: Network, source: Network) -> Iterator[str]:
    found = network.state_dict()
    for name, value in source.state_dict().items():
        if not name.startswith(BACKBONE) and not torch.equal(found[name].to(value.device), value):
            yield f"{name} has other values"
