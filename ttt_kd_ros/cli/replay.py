"""``ttt_kd replay``: a bag through the node."""

from __future__ import annotations

import argparse
import math
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_kd_ros.cli.arguments import add_bag_arguments, bag_parameters, with_options

if TYPE_CHECKING:
    from ttt_kd_ros.replay.result import Result
    from ttt_kd_ros.replay.settings import Plan

HELP = "play a bag to the node and report latency, drops, KD loss and IoU"

EPILOG = """\
The node runs as a process of its own and drops scans that it has no time for. With --in-process every scan goes
straight to the segmenter instead: the same bag and settings give the same labels, and their hash is printed.

Scans, cameras and frames are found in the bag: the cloud without a field `label`, the pictures with a CameraInfo beside
them, `base_link`, and the fixed frame above it if it moves. Clouds with a field `label` are taken as ground truth,
unless they have a field `confidence` too, as what the node has published.

examples:
  ttt_kd replay bags/pandaset_001
  ttt_kd replay bags/pandaset_001 --checkpoint street.safetensors --adaptation off --out results/source
  ttt_kd replay bags/pandaset_001 --checkpoint street.safetensors --rate 0 --steps 10 --out results/online
  ttt_kd replay bags/pandaset_001 --in-process --report --out results/pandaset_001
  ttt_kd replay drive.mcap --checkpoint street.safetensors --points-topic /top/points --param adaptation.scope=encoder
  ttt_kd replay drive.mcap --param cameras=front --param camera.front.image_topic=/front/image_color
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("bag", metavar="BAG", type=Path, help="bag to play: a directory, or one mcap or db3 file")
    parser.add_argument(
        "--checkpoint",
        metavar="FILE",
        default="",
        help="checkpoint written by `ttt_kd train` (default: the one that comes with the package)",
    )
    parser.add_argument(
        "--adaptation", choices=("off", "online", "offline"), help="adaptation mode (default: the node's, online)"
    )
    parser.add_argument(
        "--steps", metavar="N", type=int, help="gradient steps on each scan (default: as many as suit the scope)"
    )
    parser.add_argument("--teacher", metavar="SPEC", help="where to load the image model from (default: as trained)")
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--rate",
        metavar="X",
        type=float,
        default=1.0,
        help="times the recorded speed; 0: send the next scan when the last one is answered, so that none is dropped "
        "(default: %(default)s)",
    )
    pace.add_argument(
        "--in-process", action="store_true", help="every scan, without a node: repeatable; needs adaptation.budget_ms 0"
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=Path,
        help="write result.json and, from the node, node.log and a bag `segmentation`",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="write report.html to --out: the scores, and pictures and labels beside those of the source model",
    )
    add_bag_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Replay and print the report."""
    from ttt_kd_ros.errors import InputError
    from ttt_kd_ros.plotting import pyplot
    from ttt_kd_ros.replay.in_process import replay_in_process
    from ttt_kd_ros.replay.session import replay
    from ttt_kd_ros.replay.settings import ReplaySettings, plan

    if args.report and not args.out:
        raise InputError("--report needs --out DIR, the directory to write report.html to")
    if args.report:
        pyplot()  # draws in the end; is it installed?
    options = {"adaptation.mode": args.adaptation, "adaptation.steps": args.steps, "teacher": args.teacher}
    parameters = with_options(bag_parameters(args), options | {"checkpoint": args.checkpoint or None})
    settings = ReplaySettings(args.checkpoint, args.rate, parameters, args.out)
    _end_in_order()
    what = plan(args.bag, settings)
    result = replay_in_process(what) if args.in_process else replay(what)
    print(summary(result))
    if args.in_process:
        print(f"labels    SHA-256 {result.labels_sha256}")
    if args.report:
        print(f"report    {_write_report(args.out / 'report.html', what, result, in_process=args.in_process)}")
    result.require_answers()
    return 0


def _end_in_order() -> None:
    """Let the signals that end a process end the node and the recording first."""
    for number in signal.Signals:
        if number.name in ("SIGTERM", "SIGHUP") and signal.getsignal(number) is not signal.SIG_IGN:  # as by nohup
            signal.signal(number, lambda number, _: sys.exit(128 + number))


def _write_report(path: Path, what: Plan, result: Result, *, in_process: bool) -> Path:
    from ttt_kd_ros.replay.compare import compare, describe, with_source

    run = describe(what, result, in_process=in_process)
    compare(path, what, with_source(what, run))
    return path


def summary(result: Result) -> str:
    """The report as text."""
    dropped = ", ".join(f"{count} {cause}" for cause, count in result.dropped.items() if count) or "none"
    lines = [f"scans     {result.scans_in} in, {result.clouds_out} answered", f"dropped   {dropped}"]
    for camera, counts in result.pictures.items():
        causes = [f"{n} {event}" for event, n in counts.items() if n and event not in ("received", "used")]
        texts = [f"{counts.get('used', 0)} used of {counts.get('received', 0)}", *causes]
        lines.append(f"pictures  {camera}: {', '.join(texts)}")
    if result.clouds_out:
        lines.append(f"latency   {', '.join(f'{name} {value:.0f} ms' for name, value in result.latency_ms.items())}")
    if not math.isnan(result.peak_memory_mib):
        lines.append(f"memory    {result.peak_memory_mib:.0f} MiB at most")
    first, last = result.kd_loss["first"], result.kd_loss["last"]
    if not math.isnan(first):
        lines.append(f"KD loss   {first:.4f} before the first step, {last:.4f} after the last")
    if result.iou:
        lines.append(f"mIoU      {result.miou:.3f}")
        lines += [f"  {name:<12} {value:.3f}" for name, value in result.iou.items() if not math.isnan(value)]
    return "\n".join(lines)
