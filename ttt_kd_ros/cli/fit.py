"""``ttt_kd fit``: a checkpoint for the place and the sensors of a recording."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.cli.arguments import add_bag_arguments, amount, bag_stream, share, threads

if TYPE_CHECKING:
    from ttt_kd_ros.classes import ClassList
    from ttt_kd_ros.frame import Frame

HELP = "fit a checkpoint to a recording of your robot, without labels"
EPILOG = """
The recording is gone through several times with the steps that the node takes online. Scans whose image features the
checkpoint cannot predict are left out, and a pass that moves too far from the source model is undone.

examples:
  ttt_kd fit drive.mcap --checkpoint street.safetensors --out fitted
  ttt_kd fit data/kitti_raw_0926@0:20 --out fitted --passes 2 --steps 5
writes fitted/model.safetensors with its history, and fitted/report.txt, .json and .png with what changed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("data", metavar="BAG|FOLDER", help="bag, data folder, or part of a folder (FOLDER@6:20)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="what to fit (default: the package's own)")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="directory for the checkpoint and report"
    )
    parser.add_argument("--passes", type=int, default=3, metavar="N", help="times through the recording (default: 3)")
    parser.add_argument("--steps", type=int, default=-1, metavar="N", help="steps on a scan (default: the scope's)")
    parser.add_argument("--scope", default="all", metavar="NAME", help="weights that move (default: %(default)s)")
    parser.add_argument(
        "--trust", type=share, default=AdaptationSettings.trust, metavar="X",
        help="leave out scans on which the network predicts the image features with less than this share of the cosine "
        "that it had in training; 0 takes all (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--min-agreement", type=float, default=0.7, metavar="X",
        help="undo a pass in which fewer points keep the source model's label, and end there (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--teacher", default="", metavar="SPEC", help="image model to load (default: as trained)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the image model's features from pass to pass")
    parser.add_argument("--cache-gb", type=amount, default=20.0, metavar="X", help="size of the cache (default: 20)")
    parser.add_argument("--device", default="cpu", help="torch device (default: %(default)s)")
    parser.add_argument("--threads", type=threads, default=0, metavar="N", help="CPU threads (default: torch's choice)")
    add_bag_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Fit, write checkpoint and report, and print the report."""
    import torch

    from ttt_kd_ros.device import find_device
    from ttt_kd_ros.errors import InputError
    from ttt_kd_ros.fit.change import measure_change
    from ttt_kd_ros.fit.history import Source, history
    from ttt_kd_ros.fit.passes import FitSettings, fit
    from ttt_kd_ros.fit.report import text, write_report
    from ttt_kd_ros.model.checkpoint import file_sha256, load_checkpoint, save_checkpoint
    from ttt_kd_ros.model.sparse_backend import use_sparse_backend
    from ttt_kd_ros.output import claim
    from ttt_kd_ros.plotting import pyplot
    from ttt_kd_ros.share import embedded_checkpoint
    from ttt_kd_ros.teacher.cache import CachedTeacher
    from ttt_kd_ros.teacher.load import load_teacher

    path, fitted = args.checkpoint or embedded_checkpoint(), args.out / "model.safetensors"
    if path.resolve() == fitted.resolve():
        raise InputError(f"{fitted} is the checkpoint to fit, which stays as it is; give another --out")
    adaptation = replace(FitSettings.adaptation, steps=args.steps, scope=args.scope, trust=args.trust)
    settings = FitSettings(adaptation, args.passes, args.min_agreement)
    device = find_device(args.device)
    if args.threads:
        torch.set_num_threads(args.threads)
    network, manifest = load_checkpoint(path)
    claim(args.out)
    pyplot()  # draws in the end; is it installed?
    spec = manifest.network.teacher
    frames, data_sha256 = _open(args.data, path, network.config.classes, args)
    teacher = load_teacher(args.teacher or spec.source, long_side=spec.long_side, device=device)
    if args.cache:
        teacher = CachedTeacher(teacher, args.cache, round(args.cache_gb * 1e9))
    use_sparse_backend("auto", network.to(device).eval())
    survey, passes = fit(network, teacher, frames, settings, manifest.training, _progress)
    change = measure_change(network, _progress(frames, "fitted model"), survey)
    checkpoint = Source(path.name, file_sha256(path))
    data = Source(Path(args.data).name, data_sha256)
    training = history(manifest.training, checkpoint, data, settings, survey, passes, change.agreement)
    save_checkpoint(fitted, network, training)
    write_report(args.out, survey, passes, change)
    print(text(survey, passes, change))
    print(f"\n{fitted}")
    return 0


def _open(spec: str, checkpoint: Path, classes: ClassList, args: argparse.Namespace) -> tuple[Iterable[Frame], str]:
    """The frames, and the SHA-256 of the recording."""
    from ttt_kd_ros.data import open_folder
    from ttt_kd_ros.data.folder import folder_and_parts
    from ttt_kd_ros.fit.history import folder_sha256

    if stream := bag_stream(spec, checkpoint, args):
        from ttt_kd_ros.replay.bag import bag_sha256

        return stream, bag_sha256(spec)
    return open_folder(spec, classes), folder_sha256(folder_and_parts(spec)[0])


def _progress(frames: Iterable[Frame], title: str) -> Iterable[Frame]:
    from tqdm import tqdm

    return tqdm(frames, desc=title, unit="scan", leave=False)
