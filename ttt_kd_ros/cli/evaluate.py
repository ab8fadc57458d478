"""``ttt_kd evaluate``: scores of adaptation methods on streams of scans."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ttt_kd_ros.cli.arguments import add_bag_arguments, bag_parameters, bag_stream, threads

if TYPE_CHECKING:
    from ttt_kd_ros.classes import ClassList
    from ttt_kd_ros.evaluation.campaign import Data
    from ttt_kd_ros.evaluation.protocol import Protocol
    from ttt_kd_ros.frame import Frame
    from ttt_kd_ros.segmenter import Segmenter

HELP = "score adaptation methods on labelled data folders and bags"
EPILOG = r"""
A protocol names methods, numbers of steps and the points that count: config/evaluation has some, a file of your own is
as good. Each method starts from the checkpoint's weights and goes once through each stream in the order of time;
FOLDER@6:20 takes the scans 6 to 19 of a folder. With --out an interrupted run goes on where it stopped; other weights
under the same name are scored anew. Remove DIR if what lies in a folder has changed.

The protocols `indoor` and `outdoor` fill the paper's tables: checkpoints and data sets are given by the names of the
table's rows, and rows for which something is missing are left out. Started by torchrun, the scenes are dealt to its
processes; the result is the same for any number of them (docs/datasets.md).

examples:
  ttt_kd evaluate data/pandaset_001 --checkpoint seed0/model.safetensors seed1/model.safetensors --out scores
  ttt_kd evaluate data/pandaset_001 --protocol pandaset --checkpoint model.safetensors --out scores
  ttt_kd evaluate drives/source drives/rain --stream --protocol stream --checkpoint model.safetensors --out long
  torchrun --nproc-per-node 8 -m ttt_kd_ros.cli evaluate ScanNet=data/scannet S3DIS=data/s3dis --protocol indoor \
      --checkpoint ScanNet=joint.safetensors --source-only ScanNet=plain.safetensors --out indoor
writes scores/result.json (a row for each method, number of steps, checkpoint and stream), scores/table.md and plots.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the subcommand."""
    parser.add_argument(
        "data", nargs="+", metavar="FOLDER|BAG", help="data folder, part of one, or bag; NAME=FOLDER for a table"
    )
    parser.add_argument(
        "--checkpoint", nargs="+", type=Path, required=True, metavar="FILE",
        help="one for each seed; NAME=FILE for a table",
    )  # fmt: skip
    parser.add_argument(
        "--source-only", nargs="+", type=Path, default=[], metavar="FILE",
        help="networks trained without distillation, scored beside the checkpoints without adapting",
    )  # fmt: skip
    parser.add_argument("--protocol", default="modes", metavar="NAME|FILE", help="what to run (default: %(default)s)")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="some of the protocol's (default: all)")
    parser.add_argument("--steps", nargs="+", type=int, metavar="N", help="steps on a scan (default: the protocol's)")
    parser.add_argument("--stream", action="store_true", help="the data are one stream, in the order given")
    parser.add_argument("--spinning-only", action="store_true", help="leave out sensors that do not spin (PandaSet)")
    parser.add_argument(
        "--device", metavar="NAME", help="cpu, cuda or cuda:<index> (default: cpu; for a table the GPUs that there are)"
    )
    parser.add_argument(
        "--threads", type=threads, default=0, metavar="N", help="CPU threads (default: one for each core)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write scores, tables and plots")
    add_bag_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Score, keep the rows as soon as they are there, and print the tables."""
    from tqdm import tqdm

    from ttt_kd_ros.evaluation import campaign
    from ttt_kd_ros.evaluation.plots import write_plots
    from ttt_kd_ros.evaluation.protocol import load_protocol, narrowed
    from ttt_kd_ros.evaluation.rows import read_rows, with_new, write_rows
    from ttt_kd_ros.evaluation.table import method_table, score_table
    from ttt_kd_ros.model.checkpoint import load_manifest
    from ttt_kd_ros.output import claim
    from ttt_kd_ros.plotting import pyplot
    from ttt_kd_ros.segmenter import load_segmenter

    protocol = narrowed(load_protocol(args.protocol), args.methods, args.steps)
    if args.out:
        claim(args.out)
    if protocol.pairs:
        return _run_pairs(args, protocol)
    if args.out:
        pyplot()  # draws in the end; is it installed?
    checkpoints = [*args.checkpoint, *args.source_only]
    for path in checkpoints:
        protocol.check_classes(path, load_manifest(path).network.classes)
    rows = campaign.without_stale(read_rows(args.out, protocol), checkpoints) if args.out else []
    units = campaign.missing(args.checkpoint, args.source_only, _data(args), protocol, rows)
    load = partial(load_segmenter, device=args.device or "cpu", threads=args.threads)
    with tqdm(total=len(units), leave=False) as bar:
        for found in campaign.run(units, protocol, load):
            rows = with_new(rows, found)
            bar.set_description(f"{found[-1].method} on {found[-1].data}")
            bar.update()
            if args.out:
                write_rows(args.out, protocol, rows)
    adapted = [row for row in rows if row.method != campaign.SOURCE_ONLY.name]
    text = score_table(rows)
    if protocol.source:
        text += "\n\n" + method_table(adapted, protocol.source)
    print(text)
    if args.out:
        (args.out / "table.md").write_text(text + "\n")
        write_plots(args.out, adapted, protocol.source)
    return 0


def _run_pairs(args: argparse.Namespace, protocol: Protocol) -> int:
    """Fill the table of a protocol with pairs; the first process prints and writes it."""
    from tqdm import tqdm

    from ttt_kd_ros.errors import InputError
    from ttt_kd_ros.evaluation.kept import Kept
    from ttt_kd_ros.evaluation.paper_table import paper_table
    from ttt_kd_ros.evaluation.ranks import joined
    from ttt_kd_ros.evaluation.transfer import cells, score
    from ttt_kd_ros.segmenter import load_segmenter

    if args.stream or args.spinning_only:
        raise InputError("--stream and --spinning-only do not go with a protocol that has a table")
    networks, source_only = _named(map(str, args.checkpoint)), _named(map(str, args.source_only))
    filled = cells(protocol, _paths(networks), _paths(source_only), _named(args.data))
    with joined() as ranks:
        device = args.device or ranks.device
        if ranks.device.startswith(device):  # "cuda" is the GPU of this process
            device = ranks.device

        def load(path: Path) -> Segmenter:
            return load_segmenter(path, device=device, threads=args.threads or 1)

        bar = partial(tqdm, leave=False, disable=ranks.rank > 0)
        kept = Kept(args.out / "parts" if args.out else None)
        scores = score(filled, load, ranks.rank, ranks.ranks, ranks.gather, kept, bar)
        if ranks.rank:
            return 0
    text = paper_table(protocol, scores)
    print(text)
    if args.out:
        (args.out / "table.md").write_text(text + "\n")
        content = {"protocol": protocol.to_dict(), "cells": [found.to_dict() for found in scores]}
        (args.out / "result.json").write_text(json.dumps(content, indent=1) + "\n")
    return 0


def _named(texts: Iterable[str]) -> dict[str, str]:
    """Values of ``NAME=VALUE``."""
    from ttt_kd_ros.errors import InputError

    pairs = [text.partition("=") for text in texts]
    if bad := [name for name, mark, value in pairs if not mark or not value]:
        raise InputError(f"'{bad[0]}': this protocol wants NAME=..., with a name of its table")
    return {name: value for name, _, value in pairs}


def _paths(named: Mapping[str, str]) -> dict[str, Path]:
    return {name: Path(value) for name, value in named.items()}


def _data(args: argparse.Namespace) -> list[Data]:
    """Streams that the arguments name."""
    from ttt_kd_ros.errors import InputError
    from ttt_kd_ros.evaluation.campaign import Data
    from ttt_kd_ros.evaluation.kept import place

    def opener(specs: Sequence[str]) -> Callable[[Path, ClassList], Iterable[Frame]]:
        return lambda checkpoint, classes: _Chain([_open(spec, checkpoint, classes, args) for spec in specs])

    def where(specs: Sequence[str]) -> str:
        return json.dumps([[place(spec) for spec in specs], args.spinning_only, *filter(None, [bag_parameters(args)])])

    names = [Path(spec).name or Path(spec).resolve().name for spec in args.data]
    if args.stream:
        return [Data(" + ".join(names), where(args.data), opener(args.data))]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two of the data are called {twice[0]}, which tables could not tell apart; rename a folder")
    return [Data(name, where([spec]), opener([spec])) for spec, name in zip(args.data, names, strict=True)]


def _open(spec: str, checkpoint: Path, classes: ClassList, args: argparse.Namespace) -> Iterable[Frame]:
    from ttt_kd_ros.data import open_folder

    return bag_stream(spec, checkpoint, args) or open_folder(spec, classes, spinning_only=args.spinning_only)


class _Chain:
    """Streams one after the other."""

    def __init__(self, streams: Sequence[Iterable[Frame]]) -> None:
        self._streams = streams

    def __iter__(self) -> Iterator[Frame]:
        return chain.from_iterable(self._streams)
