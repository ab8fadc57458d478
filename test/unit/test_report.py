"""The report: one file that needs nothing else, with the numbers of the results."""

import base64
import re
import tracemalloc
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from stripes import camera_view

from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.errors import DataError
from ttt_kd_ros.frame import Frame, Scan
from ttt_kd_ros.replay import figures
from ttt_kd_ros.replay.report import Run, agreement, write_report
from ttt_kd_ros.replay.result import Scores

CLASSES = load_classes("street6")
STAMPS = (5_000_000_000, 5_100_000_000)
POINTS = 50
DROPPED = {"overload": 3, "malformed": 0, "unanswered": 0}
PICTURES = {"front": {"received": 5, "used": 2, "no image": 0}}


def labels(seed):
    return np.random.default_rng(seed).integers(0, 6, POINTS).astype(np.uint8)


def result_of(seed, truth=True, losses=()):
    scores = Scores(CLASSES, truth)
    for i, stamp in enumerate(STAMPS):
        if truth:
            scores.truth(stamp, labels(100 + i))
        if losses:
            scores.losses(stamp, losses)
        scores.answer(stamp, labels(seed + i), 10.0 * (seed + i + 1))
    return scores.result(5, DROPPED, PICTURES)


def runs(truth=True):
    return [
        Run("off", "in process", result_of(0, truth), {"adaptation.mode": "off"}),
        Run("online", "node", result_of(10, truth, (0.9, 0.8, 0.7654)), {"adaptation.mode": "online"}),
    ]


def scene(stamp=STAMPS[0], truth=True, views=True):
    points = np.random.default_rng(1).uniform([-20, -20, 0], [20, 20, 3], (POINTS, 3)).astype(np.float32)
    points[0] = np.nan
    return Frame(Scan(points, np.eye(4), stamp), (camera_view(),) if views else (), labels(100) if truth else None)


def page(tmp_path, compared=None, scenes=None, truth=True, title="Replay of drive"):
    path = tmp_path / "report.html"
    scenes = [scene(truth=truth)] if scenes is None else scenes
    write_report(path, title, runs(truth) if compared is None else compared, scenes, CLASSES, "ab" * 32)
    return path.read_text()


def without_pictures(text):
    return re.sub(r"base64,[^\"]*", "", text)


class Elements(HTMLParser):
    """Tables as rows of texts, pictures, and all addresses."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.images, self.addresses, self.tags = [], [], [], []
        self._cell = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self._cell = True
            self.rows[-1].append("")
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_endtag(self, tag):
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self._cell:
            self.rows[-1][-1] += data.strip()

    def row(self, name):
        return next(row[1:] for row in self.rows if row[0] == name)


def test_the_page_needs_nothing_but_itself(tmp_path):
    text = page(tmp_path)
    elements = Elements(text)
    assert elements.addresses
    assert all(address.startswith("data:image/") for address in elements.addresses)
    assert not {"script", "link", "iframe"}.intersection(elements.tags)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", without_pictures(text))


def test_all_its_pictures_can_be_decoded_and_say_what_they_are(tmp_path):
    images = Elements(page(tmp_path)).images
    assert len(images) == 2 * 4 + 2  # off, online, changed, truth: from above and in the camera; two charts
    for image in images:
        data = base64.b64decode(image["src"].split(",")[1])
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).size
        assert image["alt"]


def test_its_numbers_are_those_of_the_results(tmp_path):
    compared = runs()
    elements = Elements(page(tmp_path, compared))
    off, online = (run.result for run in compared)
    assert elements.row("scans in") == ["5", "5"]
    assert elements.row("scans answered") == ["2", "2"]
    assert elements.row("scans dropped") == ["3", "3"]
    assert [row[1:] for row in elements.rows if row[0].strip("\u2003") == "overload"] == [["3", "3"]]
    assert not [row for row in elements.rows if "malformed" in row[0]]
    assert elements.row("pictures of front used") == ["2 of 5", "2 of 5"]
    for quantile in ("p50", "p95", "p99"):
        expected = [f"{r.latency_ms[quantile]:.0f}" for r in (off, online)]
        assert elements.row(f"latency {quantile} [ms]") == expected
    assert elements.row("KD loss before the first step") == ["–", "0.9000"]
    assert elements.row("KD loss after the last step") == ["–", "0.7654"]
    assert elements.row("mIoU") == [f"{off.miou:.3f}", f"{online.miou:.3f}"]
    for name in CLASSES.names:
        assert elements.row(name) == [f"{off.iou[name]:.3f}", f"{online.iou[name]:.3f}"]
    assert elements.row("labels with adaptation online, SHA-256") == [online.labels_sha256]
    assert elements.row("bag, SHA-256") == ["ab" * 32]


def test_the_first_sentence_tells_gain_or_loss_as_it_is(tmp_path):
    compared = runs()
    gain = compared[1].result.miou - compared[0].result.miou
    verb = "raised" if gain > 0 else "lowered"
    assert f"Adaptation online {verb} mIoU from " in page(tmp_path, compared)
    back = page(tmp_path, compared[::-1])
    assert f"Adaptation off {'lowered' if gain > 0 else 'raised'} mIoU from " in back
    assert f"({-gain:+.3f})" in back


def test_the_legend_has_every_class_in_its_colour(tmp_path):
    legend = re.search(r'<div class="legend">(.*?)</div>', page(tmp_path), re.DOTALL)[1]
    for name, color in zip(CLASSES.names, CLASSES.colors, strict=True):
        assert f'style="background: rgb{color}"></span>{name}<' in legend


def test_without_ground_truth_there_is_agreement_and_no_iou(tmp_path):
    compared = runs(truth=False)
    text = page(tmp_path, compared, truth=False)
    elements = Elements(text)
    before, after = (np.concatenate([a.labels for a in run.result.answers]) for run in compared)
    assert "IoU" not in without_pictures(text)
    assert "ground truth" not in text
    assert elements.row("points labelled as with off") == ["–", f"{(before == after).mean():.1%}"]
    for index, name in enumerate(CLASSES.names):
        assert elements.row(name) == [f"{(after[before == index] == index).mean():.1%}"]


def test_a_single_run_without_views_or_losses_has_a_report(tmp_path):
    elements = Elements(page(tmp_path, runs(truth=False)[:1], [scene(truth=False, views=False)]))
    assert len(elements.images) == 2
    assert elements.row("scans in") == ["5"]


def test_a_run_without_answers_has_a_report(tmp_path):
    silent = Run("online", "node", Scores(CLASSES, False).result(4, {"overload": 4}, {}), {})
    elements = Elements(page(tmp_path, [silent], []))
    assert elements.images == []
    assert elements.row("latency p50 [ms]") == ["–"]


def test_texts_cannot_break_the_page(tmp_path):
    text = page(tmp_path, title="<script>alert(1)</script> $lead")
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


def test_agreement_leaves_out_points_without_a_label():
    source, other = Scores(CLASSES, False), Scores(CLASSES, False)
    source.answer(1, np.array([0, 0, 0, 1, 255], np.uint8), 1.0)
    other.answer(1, np.array([0, 1, 255, 1, 0], np.uint8), 1.0)
    other.answer(2, np.array([0], np.uint8), 1.0)
    agreed = agreement(source.result(1, {}, {}), other.result(2, {}, {}), CLASSES)
    assert agreed.overall == pytest.approx(2 / 3)
    assert agreed.by_class["road"] == pytest.approx(1 / 2)
    assert agreed.by_class["sidewalk"] == 1
    assert np.isnan(agreed.by_class["person"])


def test_labels_that_ground_truth_does_not_come_for_are_kept_compressed():
    scores = Scores(CLASSES, True)
    tracemalloc.start()
    for stamp in range(50):
        scores.answer(stamp, np.zeros(100_000, np.uint8), 1.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    scores.truth(20, np.zeros(100_000, np.uint8))
    assert held < 1e6
    assert scores.result(50, {}, {}).miou == 1


def test_answers_of_different_lengths_are_refused():
    source, other = Scores(CLASSES, False), Scores(CLASSES, False)
    source.answer(1, np.zeros(2, np.uint8), 1.0)
    other.answer(1, np.zeros(3, np.uint8), 1.0)
    with pytest.raises(DataError, match="scan 1 has 2 labels in one run and 3 in another"):
        agreement(source.result(1, {}, {}), other.result(1, {}, {}), CLASSES)


def decoded(data):
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_from_above_x_is_up_and_y_is_left():
    palette = figures.colors(CLASSES.palette())
    points = np.array([[15.0, 0, 0], [0, 15.0, 0]], np.float32)
    image = decoded(figures.birds_eye(points, np.array([4, 5], np.uint8), palette))
    assert image[136, 271].tolist() == list(CLASSES.colors[4])
    assert image[271, 136].tolist() == list(CLASSES.colors[5])
    assert image[406, 271].tolist() == image[271, 406].tolist() == [255, 255, 255]


def test_in_the_picture_a_point_has_its_colour_where_the_camera_sees_it():
    palette = figures.colors(CLASSES.palette())
    view = camera_view()
    ahead, behind = [10.0, 0, 1.5], [-10.0, 0, 1.5]  # on the optical axis: the middle of the picture
    both = np.array([ahead, behind], np.float32)
    image = decoded(figures.overlay(view, both, np.array([4, 5], np.uint8), palette))
    middle = image[image.shape[0] // 2, image.shape[1] // 2].astype(int)
    assert np.abs(middle - CLASSES.colors[4]).max() < 60  # JPEG
    assert figures.visible_points(view, both) == 1
