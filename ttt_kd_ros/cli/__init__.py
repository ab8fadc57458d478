"""The command line tool ``ttt_kd``.

A subcommand is a module of this package with ``HELP``, ``EPILOG``, ``add_arguments(parser)`` and ``run(args)``. It
imports what is slow to import in ``run``, so that help and mistyped options answer at once.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from ttt_kd_ros import __version__
from ttt_kd_ros.errors import InputError

COMMANDS = ("demo", "simulate", "train", "fit", "evaluate", "benchmark", "convert", "replay", "inspect")

USER_ERROR = 2
INTERRUPTED = 130

TO_INSTALL = {
    "cv2": "pip install 'ttt_kd_ros[opencv]'",
    "lightning": "pip install 'ttt_kd_ros[training]'",
    "matplotlib": "pip install 'ttt_kd_ros[replay]'",
    "rosbags": "pip install 'ttt_kd_ros[replay]'",
    "rclpy": "source the setup.bash of a ROS 2 installation",
}
"""What brings a package that only some commands need."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit code: 0, 2 for what the user can mend, 130 when interrupted."""
    args = _parser().parse_args(arguments)
    try:
        return int(args.run(args))
    except (InputError, OSError) as error:
        message = str(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in TO_INSTALL:
            raise
        message = f"this needs the package {package}; {TO_INSTALL[package]}"
    except KeyboardInterrupt:
        return INTERRUPTED
    print(f"ttt_kd: error: {' '.join(message.split())}", file=sys.stderr)
    return USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ttt_kd",
        description="Segmentation of LiDAR scans that adapts to the sensor while it runs, by distillation from a "
        "frozen image model.",
        epilog="`ttt_kd COMMAND --help` tells more of a command.",
    )
    parser.add_argument("--version", action="version", version=f"ttt_kd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"{__name__}.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=f"{module.HELP[0].upper()}{module.HELP[1:]}.",
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser
