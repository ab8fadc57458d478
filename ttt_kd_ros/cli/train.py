"""``ttt_kd train``: joint training from data folders."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ttt_kd_ros.cli.arguments import amount, count, positive, seed

HELP = "train a network on labelled and paired scans"
EPILOG = """
A folder with labels teaches ρ_Y, one with pictures ρ_2D, one with both does both; at least one of each is needed.

example:
  ttt_kd train data/semantickitti_00 data/kitti_raw_0926 --out model
writes model/model.safetensors, and model/last.ckpt to go on from with --resume.
"""
RESULTS = ("last.ckpt", "model.safetensors")
"""Of a training."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="data folder, or part of one (FOLDER@6:20)")
    parser.add_argument(
        "--held-out", nargs="+", default=[], metavar="FOLDER",
        help="folders with labels and pictures that are not trained on, to measure on how well the network can be "
        "adapted",
    )  # fmt: skip
    purpose = parser.add_mutually_exclusive_group(required=True)
    purpose.add_argument("--out", type=Path, metavar="DIR", help="directory for the model and its state")
    purpose.add_argument(
        "--measure", type=positive, metavar="N",
        help="train N steps, say how fast they were and how long all would take, and write nothing",
    )  # fmt: skip
    parser.add_argument(
        "--config", default="street6", metavar="NAME|FILE", help="training configuration (default: %(default)s)"
    )
    parser.add_argument(
        "--teacher",
        default="efficientnet-lite0",
        metavar="SPEC",
        help="image model: efficientnet-lite0 or dinov2:<directory, .pth file or hub name> (default: %(default)s)",
    )
    parser.add_argument(
        "--long-side",
        type=count,
        metavar="PX",
        help="long side of the pictures that the teacher gets; 0: as they are (default: the teacher's own)",
    )
    parser.add_argument("--steps", type=int, metavar="N", help="optimizer steps (default: the configuration's)")
    parser.add_argument(
        "--kd-weight", type=amount, metavar="X",
        help="weight of the distillation loss; 0 trains a source-only network (default: the configuration's)",
    )  # fmt: skip
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="seed of weights and batches (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on from DIR/last.ckpt")
    parser.add_argument("--devices", type=int, default=1, metavar="N", help="GPUs of each node (default: 1)")
    parser.add_argument("--nodes", type=int, default=1, metavar="N", help="machines (default: 1)")
    parser.add_argument(
        "--precision", default="32-true", metavar="NAME", help="32-true, bf16-mixed or 16-mixed (default: %(default)s)"
    )
    parser.add_argument("--accumulate", type=int, default=1, metavar="N", help="batches in a step (default: 1)")
    parser.add_argument("--tensorboard", action="store_true", help="write logs for TensorBoard to DIR/tensorboard")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="keep the teacher's features on disk")
    parser.add_argument("--spill", type=Path, metavar="DIR", help="keep the scans in files there, not in memory")
    parser.add_argument("--cache-gb", type=amount, default=20.0, metavar="X", help="size of the cache (default: 20)")


def run(args: argparse.Namespace) -> int:
    """Train and write the checkpoint."""
    import logging

    import torch

    from ttt_kd_ros.data import open_folder
    from ttt_kd_ros.model.checkpoint import save_checkpoint
    from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
    from ttt_kd_ros.model.sparse_backend import use_sparse_backend
    from ttt_kd_ros.output import claim
    from ttt_kd_ros.teacher.cache import CachedTeacher
    from ttt_kd_ros.teacher.load import load_teacher
    from ttt_kd_ros.training.adaptability import mean_adaptability
    from ttt_kd_ros.training.config import load_training_config
    from ttt_kd_ros.training.joint import SCANS_MEASURED, check_state, mean_kd_cosine, train
    from ttt_kd_ros.training.launch import Launch
    from ttt_kd_ros.training.prepare import check_held_out, held_out_scans, load_scans
    from ttt_kd_ros.training.samples import spread
    from ttt_kd_ros.training.start import started_with
    from ttt_kd_ros.training.throughput import describe, measure

    _check_place(args.out, args.resume)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    config = load_training_config(args.config)
    changes = {"steps": args.steps, "kd_weight": args.kd_weight}
    config = replace(config, **{name: value for name, value in changes.items() if value is not None})
    folders = [open_folder(folder, config.classes) for folder in args.folders]
    held_out_folders = [open_folder(folder, config.classes) for folder in args.held_out]
    check_held_out(held_out_folders)
    launch = Launch("auto", args.devices, args.nodes, args.precision, args.accumulate, args.tensorboard)
    device = launch.teacher_device
    teacher = load_teacher(args.teacher, long_side=args.long_side, device=device)
    if args.cache:
        teacher = CachedTeacher(teacher, args.cache, round(args.cache_gb * 1e9))
    spec = TeacherSpec(teacher.name, args.teacher, teacher.long_side, teacher.feature_size)
    if args.resume:
        names = [folder.name for folder in folders]
        check_state(args.out / "last.ckpt", started_with(config, args.seed, names, spec, launch.batches_per_step))
    if args.out:
        claim(args.out)
    scans, reduction = load_scans(folders, teacher, device, config.target_size, args.seed, _progress, args.spill)
    held_out = held_out_scans(held_out_folders, teacher, device, reduction, _progress)
    del teacher  # the training needs its memory
    torch.manual_seed(args.seed)
    network = Network(NetworkConfig(config.classes, spec, config.voxel_size, config.target_size, config.backbone))
    network.reduction.load_state_dict(reduction.state_dict())
    if args.measure is not None:
        print(describe(measure(network, scans, config, args.seed, args.measure, launch), config, launch))
        return 0
    if not train(network, scans, config, args.seed, args.out, args.resume, held_out, launch):
        return 0
    use_sparse_backend("auto", network)
    training: dict[str, Any] = {
        "kd_cosine": mean_kd_cosine(network, scans),
        "seed": args.seed,
        "steps": config.steps,
        "kd_weight": config.kd_weight,
        "batches_per_step": launch.batches_per_step,
        "folders": [folder.name for folder in folders],
    }
    if held_out:
        training["held_out"] = {"folders": [folder.name for folder in held_out_folders]} | asdict(
            mean_adaptability(network, spread(held_out, SCANS_MEASURED))
        )
    save_checkpoint(args.out / "model.safetensors", network, training)
    print(f"cosine of ρ_2D with the teacher on the training pairs: {training['kd_cosine']:.3f}")
    if held_out:
        found = training["held_out"]
        print(
            f"held out: cosine of ρ_2D with the teacher {found['kd_cosine']:.3f}, of the gradients of distillation and "
            f"cross-entropy {found['gradient_cosine']:.3f}"
        )
    print(args.out / "model.safetensors")
    return 0


def _check_place(directory: Path | None, resume: bool) -> None:
    """Raise InputError if there is no directory to go on in, or a training has left something in that for a new one."""
    from ttt_kd_ros.errors import InputError

    if directory is None:
        if resume:
            raise InputError("--resume goes on with the training in --out DIR, --measure keeps none; leave one out")
    elif not resume and (found := [name for name in RESULTS if (directory / name).exists()]):
        raise InputError(
            f"{directory} holds {' and '.join(found)} of an earlier training; go on from its state with --resume, give "
            f"another --out, or remove {'them' if len(found) > 1 else 'it'}"
        )


def _progress(items: Iterable[int], title: str) -> Iterable[int]:
    from tqdm import tqdm

    return tqdm(items, desc=title, leave=False)
