"""``ttt_kd convert``: data folders to bags."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "convert a data folder to a bag"

EPILOG = """\
The kind of the folder is recognised by what lies in it: SemanticKITTI, KITTI raw, nuScenes, PandaSet and range images.
Labels are mapped to the class list and written as the topic /ground_truth.

examples:
  ttt_kd convert data/pandaset_001 bags/pandaset_001
  ttt_kd convert data/pandaset_001 bags/pandaset_001_spinning --spinning-only
  ttt_kd convert data/kitti_raw_0926 bags/kitti --storage sqlite3 --raw
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="data folder to read")
    parser.add_argument("bag", metavar="BAG", type=Path, help="directory to create for the bag")
    parser.add_argument(
        "--classes",
        metavar="LIST",
        default="street6",
        help="class list of the labels: a YAML file or the name of an installed one (default: %(default)s)",
    )
    parser.add_argument(
        "--storage", choices=("mcap", "sqlite3"), default="mcap", help="format of the bag (default: %(default)s)"
    )
    parser.add_argument("--raw", action="store_true", help="write decoded pictures (Image) instead of the files' bytes")
    parser.add_argument(
        "--spinning-only", action="store_true", help="leave out the points of sensors that do not spin (PandaSet)"
    )


def run(args: argparse.Namespace) -> int:
    """Convert and say what was written."""
    from ttt_kd_ros.classes import load_classes
    from ttt_kd_ros.data import open_folder
    from ttt_kd_ros.replay.convert import convert

    folder = open_folder(args.folder, load_classes(args.classes), spinning_only=args.spinning_only)
    convert(folder, args.bag, storage=args.storage, raw=args.raw)
    cameras = ", ".join(folder.camera_names) or "none"
    truth = f"ground truth in {args.classes}" if folder.label_map else "no ground truth"
    motion = "motion known" if folder.trajectory() else "motion unknown"
    print(f"{args.bag}: {folder.kind}, {len(folder)} scans, cameras: {cameras}, {truth}, {motion}")
    return 0
