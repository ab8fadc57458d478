"""``ttt_kd simulate``: drives through made-up streets."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_kd_ros.cli.arguments import amount

if TYPE_CHECKING:
    from ttt_kd_ros.data.simulation.drive import Drive

HELP = "simulate a drive with LiDAR and cameras"

EPILOG = """\
A drive has exact labels, poses and times. Domains: source (64 beams on the roof, clear day), and targets that shift
one thing each: beams32, beams16, low, tilted, fog, rain, city, dusk, miscalibrated; all shifts several together.

examples:
  ttt_kd simulate drives/source_0 --seed 0 --frames 40
  ttt_kd simulate drives/rain_7 --domain rain --seed 7 --frames 40 --cameras front left right
  ttt_kd simulate bags/low_3 --domain low --seed 3 --bag
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("out", metavar="OUT", type=Path, help="directory to create")
    parser.add_argument("--domain", default="source", metavar="NAME", help="what is simulated (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, another drive (default: 0)")
    parser.add_argument("--frames", type=int, default=40, metavar="N", help="number of scans (default: %(default)s)")
    parser.add_argument(
        "--interval", type=amount, metavar="S", help="time between two scans (default: one turn of the LiDAR)"
    )
    parser.add_argument(
        "--cameras",
        nargs="*",
        default=["front"],
        metavar="NAME",
        help="front, left, right, rear (default: front)",
    )
    parser.add_argument("--size", metavar="WxH", help="size of the pictures (default: 640x384)")
    parser.add_argument("--columns", type=int, metavar="N", help="shots of a beam per turn (default: the domain's)")
    parser.add_argument("--bag", action="store_true", help="write a bag in place of a folder")
    parser.add_argument(
        "--classes",
        metavar="LIST",
        default="street6",
        help="class list of the bag's ground truth: a YAML file or the name of an installed one (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Simulate and say what was written."""
    from dataclasses import replace

    from ttt_kd_ros.data.folder import require_unused
    from ttt_kd_ros.data.simulation.domains import find_camera, find_domain
    from ttt_kd_ros.data.simulation.drive import Drive, write_folder

    domain = find_domain(args.domain)
    if args.columns is not None:
        domain = replace(domain, lidar=replace(domain.lidar, columns=args.columns))
    cameras = [find_camera(name) for name in args.cameras]
    if args.size is not None:
        width, height = _size(args.size)
        cameras = [replace(camera, width=width, height=height) for camera in cameras]
    drive = Drive(domain, args.seed, args.frames, tuple(cameras), args.interval)
    require_unused(args.out)
    if args.bag:
        _write_bag(drive, args.out, args.classes)
    else:
        write_folder(drive, args.out, progress)
    names = ", ".join(args.cameras) or "none"
    print(f"{args.out}: {domain.name}, seed {args.seed}, {args.frames} scans, cameras: {names}")
    return 0


def _write_bag(drive: Drive, bag: Path, classes: str) -> None:
    from tempfile import TemporaryDirectory

    from ttt_kd_ros.classes import load_classes, load_label_map
    from ttt_kd_ros.data import open_folder
    from ttt_kd_ros.data.simulated import Simulated
    from ttt_kd_ros.data.simulation.drive import write_folder
    from ttt_kd_ros.replay.convert import convert

    known = load_classes(classes)
    load_label_map(Simulated.label_map, known)  # is there one?
    with TemporaryDirectory() as temporary:
        folder = Path(temporary) / "drive"
        write_folder(drive, folder, progress)
        convert(open_folder(folder, known), bag)


def _size(text: str) -> tuple[int, int]:
    from ttt_kd_ros.errors import InputError

    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InputError(f"--size {text}: expected a width and a height such as 640x384")
    return int(width), int(height)


def progress(items: Iterable[int]) -> Iterable[int]:
    """A progress bar over the frames of a drive."""
    from tqdm import tqdm

    return tqdm(items, desc="simulating", unit="frame", leave=False)
