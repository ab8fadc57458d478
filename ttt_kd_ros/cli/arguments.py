"""Types of arguments, numbers that a command can use, and what several commands are told of a bag."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ttt_kd_ros.backends import MAX_THREADS

if TYPE_CHECKING:
    from ttt_kd_ros.replay.stream import BagStream

T = TypeVar("T", int, float)
MAX_SEED = 2**64 - 1
"""Of PyTorch."""


def count(text: str) -> int:
    """0, 1, 2, ..."""
    return _between(0, math.inf, text, int, "whole number")


def positive(text: str) -> int:
    """1, 2, 3, ..."""
    return _between(1, math.inf, text, int, "whole number")


def threads(text: str) -> int:
    """0 to `MAX_THREADS`."""
    return _between(0, MAX_THREADS, text, int, "whole number")


def seed(text: str) -> int:
    """0 to `MAX_SEED`."""
    return _between(0, MAX_SEED, text, int, "whole number")


def amount(text: str) -> float:
    """A finite number that is not negative."""
    return _between(0, math.inf, text, float, "finite number")


def share(text: str) -> float:
    """0 to 1."""
    return _between(0, 1, text, float, "share")


def _between(least: int, most: float, text: str, convert: Callable[[str], T], kind: str) -> T:
    try:
        if least <= (value := convert(text)) <= most and value < math.inf:
            return value
    except ValueError:
        pass
    bounds = f"at least {least}" if most == math.inf else f"{least} to {most}"
    raise argparse.ArgumentTypeError(f"'{text}' is no {kind} of {bounds}")


def add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """What of a bag is used, and how."""
    parser.add_argument("--points-topic", metavar="TOPIC", help="topic of a bag's scans, if there are several")
    parser.add_argument("--base-frame", metavar="FRAME", help="its frame on the ground (default: base_link)")
    parser.add_argument(
        "--fixed-frame",
        metavar="FRAME",
        help="its frame that does not move, '' for none (default: odom or the root above a base that moves)",
    )
    parser.add_argument(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="another parameter of the node, also to choose cameras (cameras=front,rear) and their topics "
        "(camera.front.image_topic=TOPIC); may be given several times",
    )


def bag_parameters(args: argparse.Namespace) -> dict[str, Any]:
    """Parameters of the node that the arguments of `add_bag_arguments` give."""
    options = {"points_topic": args.points_topic, "base_frame": args.base_frame, "fixed_frame": args.fixed_frame}
    return with_options(parse_parameters(args.param), options)


def with_options(parameters: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters of the node, and those that options of their own stand for, where they are given.

    Raises
    ------
    InputError
        If one is given in both ways.
    """
    from ttt_kd_ros.errors import InputError

    given = {name: value for name, value in options.items() if value is not None}
    if twice := sorted(given.keys() & parameters.keys()):
        raise InputError(f"{twice[0]} is given twice, by --param and by an option of its own; leave one out")
    return {**parameters, **given}


def bag_stream(spec: str, checkpoint: Path, args: argparse.Namespace) -> BagStream | None:
    """The frames of a bag, as the arguments of `add_bag_arguments` say; None for a data folder.

    Raises
    ------
    InputError
        If the arguments say something and there is no bag, or as of `BagStream`.
    """
    from ttt_kd_ros.errors import InputError

    parameters = bag_parameters(args)
    if Path(spec).is_file() or (Path(spec) / "metadata.yaml").is_file():
        from ttt_kd_ros.replay.stream import BagStream

        return BagStream(Path(spec), checkpoint, parameters)
    if parameters:
        raise InputError(f"'{spec}' is a data folder; leave out what is said of bags: {', '.join(parameters)}")
    return None


def parse_parameters(texts: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` texts; the value is YAML whose words and numbers stay texts until a type is known.

    Raises
    ------
    InputError
        If one has no ``=`` or a value that is no YAML, or two have one name.
    """
    import yaml

    from ttt_kd_ros.errors import InputError

    parameters: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--param {text}: write NAME=VALUE")
        if name in parameters:
            raise InputError(f"--param {name} is given twice; leave one out")
        try:
            parameters[name] = yaml.load(value, yaml.BaseLoader) or ""
        except yaml.YAMLError as error:
            raise InputError(f"--param {text}: the value is no YAML") from error
    return parameters
