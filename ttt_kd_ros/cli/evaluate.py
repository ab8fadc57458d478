"""``ttt_kd evaluate``: mIoU of adaptation modes on labelled folders."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "score adaptation modes on labelled data folders"
EPILOG = """
Each mode starts from the checkpoint's weights and goes once through each folder in the order of time. The table gives
mIoU over the classes present: of all labelled points / of those in a picture; with several checkpoints, as of several
seeds, mean ± standard deviation.

example:
  ttt_kd evaluate data/pandaset_001 --checkpoint seed0/model.safetensors seed1/model.safetensors --out scores
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="data folder with labels")
    parser.add_argument("--checkpoint", nargs="+", type=Path, required=True, metavar="FILE", help="one for each seed")
    parser.add_argument(
        "--modes", nargs="+", choices=("off", "online", "offline"), default=["off", "online", "offline"],
        help="what to score (default: all three)",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="gradient steps on each scan (default: 10)")
    parser.add_argument("--scope", default="norm", help="norm, encoder, decoder or all (default: norm)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="X", help="(default: 0.001)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write DIR/result.json, one row for each score")


def run(args: argparse.Namespace) -> int:
    """Score and print the table."""
    import json

    from tqdm import tqdm

    from ttt_kd_ros.adaptation.settings import AdaptationSettings
    from ttt_kd_ros.data import open_folder
    from ttt_kd_ros.evaluation.evaluate import evaluate, methods_from, table
    from ttt_kd_ros.segmenter import load_segmenter

    settings = AdaptationSettings(steps=args.steps, scope=args.scope, learning_rate=args.learning_rate)
    methods = methods_from(args.modes, settings)
    rows = []
    with tqdm(total=len(args.checkpoint) * len(args.folders), leave=False) as bar:
        for checkpoint in args.checkpoint:
            segmenter = load_segmenter(checkpoint, settings=settings)
            for path in args.folders:
                folder = open_folder(path, segmenter.classes)
                bar.set_description(folder.name)
                rows += evaluate(segmenter, folder, methods, data=folder.name, checkpoint=str(checkpoint))
                bar.update()
    print(table(rows))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "result.json").write_text(json.dumps([row.to_dict() for row in rows], indent=1) + "\n")
    return 0
