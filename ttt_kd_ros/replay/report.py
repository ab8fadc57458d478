"""A report on one or several replays of the same bag, as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import IGNORE_LABEL, Frame
from ttt_kd_ros.geometry.transforms import transform_points
from ttt_kd_ros.replay import figures
from ttt_kd_ros.replay.report_template import PAGE
from ttt_kd_ros.replay.result import Result

NOTHING = "–"
NOTES = (
    "Latency: from a node, between sending a scan and the arrival of its cloud; in process, the time in the segmenter.",
    "KD loss: distance between the network's features and the image model's, mean over the scans with gradient steps.",
    f"{NOTHING}: cannot be told.",
)
TRUTH_NOTE = "IoU: intersection over union of the predicted and the true points of a class, over the scans answered."


@dataclass(frozen=True)
class Run:
    """One replay.

    Parameters
    ----------
    name
        What tells it from the others, in a word: the adaptation mode.
    how
        How it was run, in a few words.
    result
        What came of it.
    parameters
        Parameters of the node.
    """

    name: str
    how: str
    result: Result
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Agreement:
    """How far the labels of a run are those of another one.

    Parameters
    ----------
    overall
        Share of the points that have the same label; of points with a label in both.
    by_class
        Share of the other run's points of each class that have kept it, NaN without such points.
    """

    overall: float
    by_class: Mapping[str, float]


def write_report(
    path: Path, title: str, runs: Sequence[Run], scenes: Sequence[Frame], classes: ClassList, bag_sha256: str
) -> None:
    """Write a report.

    Parameters
    ----------
    path
        HTML file to write.
    title
        Its heading.
    runs
        What to compare; the first one is what the others are compared with, as a rule adaptation off. What the second
        one changed is shown by itself.
    scenes
        Scans to show: frames of the bag that all runs have answered.
    classes
        What the labels mean.
    bag_sha256
        Hash of the bag.

    Raises
    ------
    DataError
        If two runs gave a scan different numbers of labels.
    """
    agreements = [agreement(runs[0].result, run.result, classes) for run in runs[1:]]
    path.write_text(
        PAGE.substitute(
            title=html.escape(title),
            lead=html.escape(_lead(runs, agreements)),
            numbers=_numbers(runs, agreements),
            classes=_classes(runs, agreements, classes),
            legend=_legend(classes),
            notes="<br>\n".join(map(html.escape, (TRUTH_NOTE, *NOTES) if _has_truth(runs) else NOTES)),
            scenes="\n".join(_scene(scene, runs, classes) for scene in scenes),
            charts=_charts(runs),
            settings=_settings(runs, bag_sha256),
        ),
        encoding="utf-8",
    )


def agreement(source: Result, other: Result, classes: ClassList) -> Agreement:
    """How far the labels of `other` are those of `source`, over the scans that both have answered.

    Raises
    ------
    DataError
        If they gave a scan different numbers of labels.
    """
    size = len(classes.names)
    matrix = np.zeros((size, size), np.int64)
    labels_of = {answer.stamp: answer for answer in source.answers}
    for answer in other.answers:
        if answer.stamp in labels_of:
            before, after = labels_of[answer.stamp].labels, answer.labels
            if before.shape != after.shape:
                raise DataError(f"scan {answer.stamp} has {before.size} labels in one run and {after.size} in another")
            both = (before < size) & (after < size)
            cells = before[both].astype(np.int64) * size + after[both]
            matrix += np.bincount(cells, minlength=size * size).reshape(size, size)
    kept, present = np.diagonal(matrix), matrix.sum(axis=1)
    overall = float(kept.sum() / present.sum()) if present.any() else math.nan
    shares = [float(k / p) if p else math.nan for k, p in zip(kept, present, strict=True)]
    return Agreement(overall, dict(zip(classes.names, shares, strict=True)))


def _lead(runs: Sequence[Run], agreements: Sequence[Agreement]) -> str:
    """What came of it in a sentence for each run."""
    source = runs[0]
    if not agreements:
        return f"Adaptation {source.name}: {source.result.clouds_out} of {source.result.scans_in} scans answered."
    texts = []
    for run, agreed in zip(runs[1:], agreements, strict=True):
        changed = f"changed the label of {1 - agreed.overall:.1%} of the points"
        gain = run.result.miou - source.result.miou
        if math.isnan(gain):
            texts.append(f"Adaptation {run.name} {changed}.")
        else:
            verb = "raised" if gain > 0 else "lowered" if gain < 0 else "left"
            texts.append(
                f"Adaptation {run.name} {verb} mIoU from {source.result.miou:.3f} to {run.result.miou:.3f} "
                f"({gain:+.3f}) and {changed}."
            )
    if len({tuple(answer.stamp for answer in run.result.answers) for run in runs}) > 1:
        texts.append("The runs did not answer the same scans; each is scored on those that it answered.")
    return "\n".join(texts)


def _numbers(runs: Sequence[Run], agreements: Sequence[Agreement]) -> str:
    results = [run.result for run in runs]
    rows = [
        ("run", [run.how for run in runs]),
        ("scans in", [str(r.scans_in) for r in results]),
        ("scans answered", [str(r.clouds_out) for r in results]),
        ("scans dropped", [str(sum(r.dropped.values())) for r in results]),
    ]
    causes = dict.fromkeys(cause for r in results for cause, count in r.dropped.items() if count)
    rows += [(f"&emsp;{html.escape(cause)}", [str(r.dropped.get(cause, 0)) for r in results]) for cause in causes]
    rows += [(f"pictures of {html.escape(c)} used", [_used(r, c) for r in results]) for c in _cameras(results)]
    rows += [(f"latency {q} [ms]", [_number(r.latency_ms[q], 0) for r in results]) for q in ("p50", "p95", "p99")]
    rows.append(("memory at most [MiB]", [_number(r.peak_memory_mib, 0) for r in results]))
    rows.append(("KD loss before the first step", [_number(r.kd_loss["first"], 4) for r in results]))
    rows.append(("KD loss after the last step", [_number(r.kd_loss["last"], 4) for r in results]))
    if _has_truth(runs):
        rows.append(("mIoU", [_number(r.miou, 3) for r in results]))
    if agreements:
        shares = [NOTHING, *(_percent(a.overall) for a in agreements)]
        rows.append((f"points labelled as with {html.escape(runs[0].name)}", shares))
    return _table("adaptation", [run.name for run in runs], rows)


def _classes(runs: Sequence[Run], agreements: Sequence[Agreement], classes: ClassList) -> str:
    names = [(f"{_swatch(color)}{html.escape(n)}", n) for n, color in zip(classes.names, classes.colors, strict=True)]
    if _has_truth(runs):
        rows = [(text, [_number(r.result.iou[name], 3) for r in runs]) for text, name in names]
        rows.append(("mean", [_number(r.result.miou, 3) for r in runs]))
        return _table("IoU with the ground truth", [run.name for run in runs], rows)
    if agreements:
        rows = [(text, [_percent(a.by_class[name]) for a in agreements]) for text, name in names]
        rows.append(("all", [_percent(a.overall) for a in agreements]))
        return _table(f"points that keep their class of {runs[0].name}", [run.name for run in runs[1:]], rows)
    return ""


def _scene(frame: Frame, runs: Sequence[Run], classes: ClassList) -> str:
    """One scan: from above and in the camera that sees most of it, a column for each run."""
    columns = _columns(frame, runs)
    palette = figures.colors(classes.palette())
    points = frame.scan.points
    base_points = transform_points(frame.scan.T_base_scan, torch.from_numpy(np.ascontiguousarray(points))).numpy()
    pictures = [_figure(name, figures.birds_eye(base_points, labels, palette), "png") for name, labels in columns]
    view = max(frame.views, key=lambda view: figures.visible_points(view, points), default=None)
    if view is not None:
        pictures += [
            _figure(f"{name}, in {view.name}", figures.overlay(view, points, labels, palette), "jpeg")
            for name, labels in columns
        ]
    return (
        f"<h3>Scan {_since_start(frame, runs):.1f} s after the first (stamp {frame.scan.stamp / 1e9:.3f} s)</h3>\n"
        f'<div class="pictures" style="grid-template-columns: repeat({len(columns)}, minmax(0, 1fr))">\n'
        + "\n".join(pictures)
        + "\n</div>"
    )


def _columns(frame: Frame, runs: Sequence[Run]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Caption and labels of each picture of a scan."""
    labels = [_labels(run.result, frame.scan.stamp) for run in runs]
    columns = [(f"adaptation {run.name}", each) for run, each in zip(runs, labels, strict=True)]
    if len(runs) > 1:
        changed = labels[1] != labels[0]
        name = f"changed by {runs[1].name}: {changed.mean():.1%}"
        columns.append((name, np.where(changed, labels[1], IGNORE_LABEL).astype(np.uint8)))
    if frame.labels is not None:
        columns.append(("ground truth", frame.labels))
    return columns


def _since_start(frame: Frame, runs: Sequence[Run]) -> float:
    """Seconds between the first scan that was answered and this one."""
    return (frame.scan.stamp - min(answer.stamp for answer in runs[0].result.answers)) / 1e9


def _labels(result: Result, stamp: int) -> NDArray[np.uint8]:
    return next(answer.labels for answer in result.answers if answer.stamp == stamp)


def _charts(runs: Sequence[Run]) -> str:
    losses = {run.name: [a.kd_losses for a in run.result.answers] for run in runs}
    latencies = {run.name: [a.latency_ms for a in run.result.answers] for run in runs}
    charts = []
    if any(any(scans) for scans in losses.values()):
        charts.append(_figure("Distance to the image model: KD loss over the steps", figures.loss_chart(losses), "png"))
    if any(latencies.values()):
        charts.append(_figure("How long a scan takes", figures.latency_chart(latencies), "png"))
    return "\n".join(charts)


def _settings(runs: Sequence[Run], bag_sha256: str) -> str:
    rows = [("bag, SHA-256", [bag_sha256])]
    rows += [(f"labels with adaptation {html.escape(r.name)}, SHA-256", [r.result.labels_sha256]) for r in runs]
    parts = [_table("hash", ["value"], rows)]
    for run in runs:
        text = html.escape(json.dumps(dict(run.parameters), indent=1))
        summary = f"<summary>Parameters with adaptation {html.escape(run.name)}</summary>"
        parts.append(f"<details>{summary}\n<pre>{text}</pre></details>")
    return "\n".join(parts)


def _legend(classes: ClassList) -> str:
    entries = [*zip(classes.names, classes.colors, strict=True), ("no label, or not changed", figures.NO_LABEL_COLOR)]
    return "\n".join(f"<span>{_swatch(color)}{html.escape(name)}</span>" for name, color in entries)


def _swatch(color: tuple[int, int, int]) -> str:
    return f'<span class="swatch" style="background: rgb{color}"></span>'


def _table(corner: str, head: Iterable[str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A table; the first text of each row is HTML, the others are plain."""
    top = "".join(f"<th>{html.escape(text)}</th>" for text in (corner, *head))
    body = "\n".join(
        f"<tr><td>{name}</td>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
        for name, cells in rows
    )
    return f"<table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _figure(caption: str, data: bytes, kind: str) -> str:
    text = html.escape(caption)
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f'<figure><figcaption>{text}</figcaption><img alt="{text}" src="{source}"></figure>'


def _has_truth(runs: Sequence[Run]) -> bool:
    return any(run.result.iou for run in runs)


def _cameras(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(camera for result in results for camera in result.pictures))


def _used(result: Result, camera: str) -> str:
    counts = result.pictures.get(camera, {})
    return f"{counts.get('used', 0)} of {counts.get('received', 0)}"


def _number(value: float, digits: int) -> str:
    return NOTHING if math.isnan(value) else f"{value:.{digits}f}"


def _percent(share: float) -> str:
    return NOTHING if math.isnan(share) else f"{share:.1%}"
