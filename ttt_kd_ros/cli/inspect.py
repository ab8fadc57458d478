"""``ttt_kd inspect``: what a checkpoint says of itself."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "show what a checkpoint is"
EPILOG = """
example:
  ttt_kd inspect model/model.safetensors
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="a .safetensors file of `ttt_kd train` or `ttt_kd fit`"
    )
    parser.add_argument("--json", action="store_true", help="print the whole manifest as JSON")


def run(args: argparse.Namespace) -> int:
    """Check the checkpoint and print its manifest."""
    from ttt_kd_ros.fit.history import FITS, describe
    from ttt_kd_ros.model.backbone import kind_of
    from ttt_kd_ros.model.checkpoint import load_checkpoint

    network, manifest = load_checkpoint(args.checkpoint)
    if args.json:
        print(manifest.to_json())
        return 0
    config, teacher, backbone = manifest.network, manifest.network.teacher, manifest.network.backbone
    parameters = sum(p.numel() for p in network.parameters())
    size = f"{teacher.long_side} px" if teacher.long_side else "own size"
    rows = {
        "classes": f"{config.classes.name}: {', '.join(config.classes.names)}",
        "teacher": f"{teacher.name} from {teacher.source}, {teacher.feature_size} features, pictures at {size}",
        "targets": f"{config.target_size} principal components",
        "voxels": f"{config.voxel_size:g} m",
        "backbone": f"{kind_of(backbone)}, encoder {backbone.encoder}, decoder {backbone.decoder}",
        "parameters": f"{parameters:,}",
        **{name: str(value) for name, value in manifest.training.items() if name != FITS},
        **{f"fit {number}": describe(fit) for number, fit in enumerate(manifest.training.get(FITS, []), start=1)},
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:<{width}}  {value}")
    return 0
