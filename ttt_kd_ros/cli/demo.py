"""``ttt_kd demo``: what the package does, on a simulated drive."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "simulate a drive in another domain and show what adaptation changes"
EPILOG = """
Simulates a drive, plays it to the node with adaptation off and online, and offline in this process, and writes
DIR/report.html and DIR/result.json. What an earlier demo has left in DIR has to be removed first.

example:
  ttt_kd demo --out demo --domain beams16
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR", help="directory (default: demo)")
    parser.add_argument("--checkpoint", default="", metavar="FILE", help="source model (default: the package's own)")
    parser.add_argument(
        "--domain",
        default="all",
        metavar="NAME",
        help="domain of the drive, see `ttt_kd simulate` (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1000, metavar="N", help="seed of the drive (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=20, metavar="N", help="scans (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, metavar="N", help="gradient steps on each scan (default: 5)")


def run(args: argparse.Namespace) -> int:
    """Simulate, replay and write the report."""
    import os

    from tqdm import tqdm

    from ttt_kd_ros.cli.simulate import progress
    from ttt_kd_ros.data.folder import require_unused
    from ttt_kd_ros.data.simulation.domains import find_camera, find_domain
    from ttt_kd_ros.data.simulation.drive import Drive, write_folder
    from ttt_kd_ros.replay.demo import DemoSettings, check, demonstrate

    drive = Drive(find_domain(args.domain), args.seed, args.frames, (find_camera("front"),))
    for part in ("drive", "simulated_drive", "off", "online"):
        require_unused(args.out / part)
    beside_the_player = max(1, (os.cpu_count() or 1) - 1)
    parameters = {"adaptation.steps": args.steps, "threads": beside_the_player}
    settings = DemoSettings(args.out / "drive", args.checkpoint, parameters)
    check(settings)
    write_folder(drive, args.out / "drive", progress)
    with tqdm(total=5, unit="part", leave=False) as bar:

        def stage(name: str) -> None:
            bar.set_description(name)
            bar.update()

        report = demonstrate(args.out, settings, stage)
    print(f"report: {report.resolve()}")
    return 0
