"""``ttt_kd benchmark``: the time of each stage."""

from __future__ import annotations

import argparse
from pathlib import Path

from ttt_kd_ros.cli.arguments import positive, threads

HELP = "time each stage on data folders, beside slower ways and the machine's limits"
EPILOG = """
Each stage takes turns with the others on the same frames; the table gives median and quartiles, and the time that the
operations and bytes it cannot do without would take at the rates measured on this machine.

example:
  ttt_kd benchmark data/kitti_raw_0926 data/nuscenes_6cam --out speed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="data folder")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="network (default: the package's own)")
    parser.add_argument("--frames", type=positive, default=3, metavar="N", help="frames of each folder (default: 3)")
    parser.add_argument("--repeats", type=positive, default=5, metavar="N", help="runs on each frame (default: 5)")
    parser.add_argument(
        "--steps", type=positive, default=10, metavar="N", help="gradient steps on each scan (default: 10)"
    )
    parser.add_argument("--scope", default="all", metavar="NAME", help="weights that the steps move (default: all)")
    parser.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or cuda:<index> (default: cpu)")
    parser.add_argument("--threads", type=threads, default=0, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the seconds that one thread computes, not those that pass: where other programs use the cores",
    )
    parser.add_argument("--scaling", action="store_true", help="also measure 5,000 to 200,000 voxels")
    parser.add_argument(
        "--backends",
        action="store_true",
        help="also compare what can compute the sparse convolutions, on 20,000 to 200,000 voxels",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write DIR/result.json and the plot of --scaling")


def run(args: argparse.Namespace) -> int:
    """Measure and print the tables."""
    import json
    import time
    from dataclasses import asdict
    from functools import partial

    import torch

    from ttt_kd_ros.adaptation.settings import AdaptationSettings
    from ttt_kd_ros.benchmark.limits import measure_machine
    from ttt_kd_ros.benchmark.plot import write_scaling
    from ttt_kd_ros.benchmark.report import machine_line, text
    from ttt_kd_ros.benchmark.run import benchmark
    from ttt_kd_ros.data import open_folder
    from ttt_kd_ros.device import find_device, finished_at
    from ttt_kd_ros.errors import InputError
    from ttt_kd_ros.model.checkpoint import load_checkpoint
    from ttt_kd_ros.model.sparse_backend import use_sparse_backend
    from ttt_kd_ros.output import claim
    from ttt_kd_ros.plotting import pyplot
    from ttt_kd_ros.share import embedded_checkpoint
    from ttt_kd_ros.teacher.load import load_teacher

    if args.out:
        claim(args.out)
        if args.scaling:
            pyplot()  # draws in the end; is it installed?
    device = find_device(args.device)
    if args.cpu_time and device.type != "cpu":
        raise InputError("--cpu-time is what a CPU computes; leave it out or measure the device cpu")
    clock = time.thread_time if args.cpu_time else partial(finished_at, device)
    threads = 1 if args.cpu_time else args.threads
    if threads:
        torch.set_num_threads(threads)
    network, manifest = load_checkpoint(args.checkpoint or embedded_checkpoint())
    folders = [open_folder(path, network.config.classes) for path in args.folders]
    network.to(device).eval()
    used = use_sparse_backend("auto", network)
    spec = manifest.network.teacher
    teacher = load_teacher(spec.source, long_side=spec.long_side, device=device)
    settings = AdaptationSettings(steps=args.steps, scope=args.scope)
    machine = measure_machine(device, clock)
    print(f"{machine_line(machine)}, sparse backend {used}")
    results = []
    for folder in folders:
        results.append(
            benchmark(
                network, teacher, folder, settings, machine,
                frames=args.frames, repeats=args.repeats, scale=args.scaling, backends=args.backends,
                clock=clock,
            )
        )  # fmt: skip
        print(f"\n{text(results[-1])}", flush=True)
    if args.out:
        content = {
            "machine": asdict(machine),
            "sparse_backend": used,
            "cpu_time": args.cpu_time,
            "folders": [result.to_dict() for result in results],
        }
        (args.out / "result.json").write_text(json.dumps(content, indent=1) + "\n")
        for result in results if args.scaling else ():
            write_scaling(args.out / f"scaling_{result.data}.png", result.scaling, f"{result.data}, {machine.name}")
    return 0
