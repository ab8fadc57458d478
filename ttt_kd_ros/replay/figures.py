"""Pictures and charts of a report, as the bytes of PNG and JPEG files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import cv2
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ttt_kd_ros.frame import IGNORE_LABEL, CameraView
from ttt_kd_ros.geometry.projection import project, scale_camera
from ttt_kd_ros.geometry.transforms import transform_points

Picture: TypeAlias = NDArray[np.uint8]

BIRDS_EYE_METERS = 60.0
BIRDS_EYE_PIXELS = 540
OVERLAY_PIXELS = 720
NO_LABEL_COLOR = (215, 215, 215)
RUN_STYLES = (("#000000", "-", "o"), ("#0072B2", "--", "s"), ("#D55E00", "-.", "^"), ("#CC79A7", ":", "D"))
"""Colour (Okabe-Ito), line and marker of the first, second, ... run."""


def colors(palette: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(256, 3) the palette of a class list with a light grey for points without a label."""
    table = palette.copy()
    table[IGNORE_LABEL] = NO_LABEL_COLOR
    return table


def birds_eye(points: NDArray[np.float32], labels: NDArray[np.uint8], palette: NDArray[np.uint8]) -> bytes:
    """PNG of the labelled points from above: x of the base frame up, y left, 60 m wide.

    Parameters
    ----------
    points
        (N, 3) [m] in the base frame.
    labels
        (N,) label of each point.
    palette
        (256, 3) RGB by label.
    """
    scale = BIRDS_EYE_PIXELS / BIRDS_EYE_METERS
    shown = np.isfinite(points).all(axis=1) & (np.abs(points[:, :2]).max(axis=1) < BIRDS_EYE_METERS / 2)
    points, labels = points[shown], labels[shown]
    order = np.lexsort((points[:, 2], labels != IGNORE_LABEL))
    points, labels = points[order], labels[order]
    columns, rows = np.floor(BIRDS_EYE_PIXELS / 2 - points[:, [1, 0]] * scale).astype(int).T
    image = np.full((BIRDS_EYE_PIXELS, BIRDS_EYE_PIXELS, 3), 255, np.uint8)
    size = np.where(labels == IGNORE_LABEL, 2, 3)
    for down, right in np.ndindex(3, 3):
        drawn = max(down, right) < size
        at = [np.minimum(place[drawn] + step, BIRDS_EYE_PIXELS - 1) for place, step in ((rows, down), (columns, right))]
        image[at[0], at[1]] = palette[labels[drawn]]
    centre = BIRDS_EYE_PIXELS // 2
    arrow = np.array([[centre, centre - 11], [centre - 7, centre + 8], [centre + 7, centre + 8]], np.int32)
    cv2.fillPoly(image, [arrow], (0, 0, 0))
    _draw_scale(image, round(10 * scale))
    return _encode(image, ".png")


def overlay(
    view: CameraView, points: NDArray[np.float32], labels: NDArray[np.uint8], palette: NDArray[np.uint8]
) -> bytes:
    """JPEG of the picture with the labelled points in it, near ones over far ones.

    Parameters
    ----------
    view
        The picture and its camera.
    points
        (N, 3) [m] in the scan frame.
    labels
        (N,) label of each point; those without one are left out.
    palette
        (256, 3) RGB by label.
    """
    height = round(view.image.shape[0] * OVERLAY_PIXELS / view.image.shape[1])
    image = cv2.resize(view.image, (OVERLAY_PIXELS, height), interpolation=cv2.INTER_AREA)
    image = np.asarray(image * 0.6, np.uint8)
    pixels, depth, index = _visible(view, points, OVERLAY_PIXELS, height)
    far_first = np.argsort(-depth)
    for (u, v), label in zip(pixels[far_first], labels[index[far_first]], strict=True):
        if label != IGNORE_LABEL:
            cv2.circle(image, (round(float(u)), round(float(v))), 2, palette[label].tolist(), -1, cv2.LINE_AA)
    return _encode(image, ".jpg")


def visible_points(view: CameraView, points: NDArray[np.float32]) -> int:
    """How many points lie in the picture."""
    return len(_visible(view, points, view.image.shape[1], view.image.shape[0])[0])


def loss_chart(losses: Mapping[str, Sequence[Sequence[float]]]) -> bytes:
    """PNG of the KD losses of each run: for each scan from before its first step to after its last, if it had any."""
    figure, axes = _figure("scan (its gradient steps from left to right)", "KD loss")
    for (name, scans), (color, line, marker) in zip(losses.items(), RUN_STYLES, strict=False):
        if any(scans):
            at = [scan + np.linspace(0, 0.8, len(values) + 1) for scan, values in enumerate(scans)]
            gapped = [(*values, np.nan) for values in scans]  # no line from one scan to the next
            axes.plot(np.concatenate(at), np.concatenate(gapped), line, color=color, marker=marker, markersize=3.5,
                      linewidth=1.2, label=name)  # fmt: skip
    axes.legend(title="adaptation", frameon=False)
    axes.margins(y=0.15)
    return _png(figure)


def latency_chart(latencies_ms: Mapping[str, Sequence[float]]) -> bytes:
    """PNG of the histogram of the latencies of each run."""
    figure, axes = _figure("latency of a scan [ms]", "scans")
    everything = np.concatenate([np.asarray(values, float) for values in latencies_ms.values()])
    edges = np.histogram_bin_edges(everything, bins=30).tolist()
    for (name, values), (color, line, _) in zip(latencies_ms.items(), RUN_STYLES, strict=False):
        axes.hist(values, edges, histtype="stepfilled", facecolor=(*_rgb(color), 0.15), edgecolor=color,
                  linestyle=line, linewidth=1.6, label=f"{name} (median {np.median(values):.0f} ms)")  # fmt: skip
    axes.legend(title="adaptation", frameon=False)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return _png(figure)


def _visible(
    view: CameraView, points: NDArray[np.float32], width: int, height: int
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Pixels (M, 2), depths (M,) [m] and indices (M,) of the points in the picture, scaled to a size."""
    index = np.flatnonzero(np.isfinite(points).all(axis=1))
    in_camera = transform_points(view.T_camera_scan, torch.from_numpy(np.ascontiguousarray(points[index])))
    pixels, visible = project(scale_camera(view.camera, width, height), in_camera)
    return pixels[visible].numpy(), in_camera[visible, 2].numpy(), index[visible.numpy()]


def _draw_scale(image: Picture, length: int) -> None:
    bottom = image.shape[0] - 14
    cv2.rectangle(image, (8, bottom - 24), (length + 24, image.shape[0] - 6), (255, 255, 255), -1)
    cv2.line(image, (16, bottom), (16 + length, bottom), (0, 0, 0), 3)
    cv2.putText(image, "10 m", (16, bottom - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)


def _encode(image: Picture, suffix: str) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 82] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    _, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return data.tobytes()


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 3.4), dpi=130, layout="constrained")
    axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.88")
    axes.set_axisbelow(True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure, axes


def _rgb(color: str) -> tuple[float, float, float]:
    red, green, blue = to_rgb(color)
    return red, green, blue


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    FigureCanvasAgg(figure).print_png(stream)
    return stream.getvalue()
