"""The node under test in its own executor, and a second node that plays its surroundings."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from scene import BASE, CAMERA_FRAME, LIDAR, LIDAR_FROM_OPTICAL, transform
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_ros import StaticTransformBroadcaster, TransformBroadcaster

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.errors import CheckpointError, InputError, TeacherError
from ttt_kd_ros.frame import IGNORE_LABEL, AdaptationReport, Frame, Segmentation
from ttt_kd_ros.ros.counts import RECEIVED
from ttt_kd_ros.ros.model_thread import ModelThread
from ttt_kd_ros.ros.segment_node import LoadSegmenter, SegmentNode

TIMEOUT = 20.0


class FakeSegmenter:
    """Labels a point by its place in the scan, and remembers what it was asked."""

    classes = load_classes("street6")

    def __init__(self, settings: AdaptationSettings) -> None:
        self.settings = settings
        self.frames: list[Frame] = []
        self.events: list[str] = []
        self.failures: list[Exception] = []
        self.threads = {threading.get_ident()}
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.stopped = threading.Event()
        self.refusal = ""
        self.dues: list[float] = []
        self.report = AdaptationReport(0, "off")
        self.lessons: list[Frame] = []

    def segment(self, frame: Frame, due: float = math.inf) -> Segmentation:
        self.dues.append(due)
        self.threads.add(threading.get_ident())
        self.frames.append(frame)
        self.events.append("begin")
        if not self.may_go_on.wait(TIMEOUT):
            raise RuntimeError("the test never let the segmenter go on")
        if self.failures:
            raise self.failures.pop()
        valid = np.isfinite(frame.scan.points).all(axis=1)
        labels = np.where(valid, np.arange(len(valid)) % 6, IGNORE_LABEL).astype(np.uint8)
        self.events.append("end")
        report = replace(self.report, weight_version=len(self.frames))
        return Segmentation(labels, valid.astype(np.float32), report, {"predict": 1.5})

    def learn(self, frame: Frame) -> None:
        self.threads.add(threading.get_ident())
        self.lessons.append(frame)

    def configure(self, settings: AdaptationSettings) -> None:
        if settings.mode != "off" and self.settings.mode == "off":
            raise TeacherError("adaptation needs the teacher")
        self.threads.add(threading.get_ident())
        self.settings = settings
        self.events.append("configure")

    def reset(self) -> None:
        self.threads.add(threading.get_ident())
        self.events.append("reset")

    def save_weights(self, path: str) -> None:
        self.events.append(f"save {path}")

    def load_weights(self, path: str) -> None:
        if self.refusal:
            raise InputError(self.refusal)
        self.events.append(f"load {path}")

    def stop(self) -> None:
        self.stopped.set()

    def close(self) -> None:
        self.events.append("close")


class WatchedModelThread(ModelThread):
    """Tells how often it was asked to run something."""

    def __init__(self) -> None:
        self.asked = 0
        super().__init__()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        return super().run(*args, **kwargs)


class Surroundings(Node):
    """Drivers and viewers of a robot with one LiDAR and one camera."""

    def __init__(self) -> None:
        super().__init__("surroundings")
        self.changed = threading.Condition()
        self.clouds: list[PointCloud2] = []
        self.reports: list[dict[str, str]] = []
        self.states: dict[str, DiagnosticStatus] = {}
        self.diagnostics = 0
        self.points = self.create_publisher(PointCloud2, "points", qos_profile_sensor_data)
        self.images = self.create_publisher(Image, "front/image_raw", qos_profile_sensor_data)
        self.files = self.create_publisher(CompressedImage, "front/image_raw/compressed", qos_profile_sensor_data)
        self.infos = self.create_publisher(CameraInfo, "front/camera_info", qos_profile_sensor_data)
        self.static_transforms = StaticTransformBroadcaster(self)
        self.transforms = TransformBroadcaster(self)
        self.create_subscription(PointCloud2, "segment/segmentation", self._on_cloud, 100)
        self.create_subscription(DiagnosticArray, "segment/report", self._on_report, 100)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self.reset_client = self.create_client(Trigger, "segment/reset")
        self.parameter_client = self.create_client(SetParametersAtomically, "segment/set_parameters_atomically")

    def _on_cloud(self, message: PointCloud2) -> None:
        with self.changed:
            self.clouds.append(message)
            self.changed.notify_all()

    def _on_report(self, message: DiagnosticArray) -> None:
        with self.changed:
            self.reports.append({pair.key: pair.value for pair in message.status[0].values})
            self.changed.notify_all()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self.changed:
            self.states |= {state.name: state for state in message.status}
            self.diagnostics += 1
            self.changed.notify_all()

    def wait_until(self, condition: Callable[[], object], timeout: float = TIMEOUT) -> None:
        """Wait for a condition; looked at after every message and every 20 ms."""
        deadline = self.get_clock().now().nanoseconds + round(timeout * 1e9)
        with self.changed:
            while not condition():
                assert self.get_clock().now().nanoseconds < deadline, "waited in vain"
                self.changed.wait(0.02)

    def wait_for_clouds(self, number: int) -> list[PointCloud2]:
        """The clouds so far, at least so many."""
        self.wait_until(lambda: len(self.clouds) >= number)
        return self.clouds

    def wait_for_state(self, name: str, event: str) -> DiagnosticStatus:
        """The state of a subject once its diagnostics count an event."""

        def reached() -> bool:
            state = self.states.get(f"segment: {name}")
            return state is not None and {v.key: v.value for v in state.values}[event] != "0"

        self.wait_until(reached)
        return self.states[f"segment: {name}"]

    def wait_for_diagnostics(self, number: int) -> None:
        """Wait for so many more messages of diagnostics."""
        enough = self.diagnostics + number
        self.wait_until(lambda: self.diagnostics >= enough)

    def tells_silence(self, name: str) -> bool:
        """Whether the last diagnostics say that nothing arrives of a subject."""
        return "nothing arrives" in self.states[f"segment: {name}"].message

    @contextmanager
    def repeating(self, publisher: Publisher, message: Any) -> Iterator[None]:
        """Publish a message ten times a second."""
        timer = self.create_timer(0.1, lambda: publisher.publish(message))
        yield
        self.destroy_timer(timer)

    def set_parameters(self, **values: Any) -> SetParametersResult:
        """Ask for a change of all given parameters at once; `__` stands for a dot."""
        request = SetParametersAtomically.Request(
            parameters=[Parameter(n.replace("__", "."), value=v).to_parameter_msg() for n, v in values.items()]
        )
        return self._call(self.parameter_client, request).result

    def reset(self) -> Trigger.Response:
        return self._call(self.reset_client, Trigger.Request())

    def call(self, kind: Any, name: str, **request: Any) -> Any:
        """Ask a service of the node."""
        client = self.create_client(kind, f"segment/{name}")
        try:
            return self._call(client, kind.Request(**request))
        finally:
            self.destroy_client(client)

    def transition(self, label: str) -> bool:
        """Ask for a transition of the node's lifecycle; returns whether it succeeded."""
        return self.call(ChangeState, "change_state", transition=Transition(label=label)).success

    def lifecycle_state(self) -> str:
        return self.call(GetState, "get_state").current_state.label

    def _call(self, client: Any, request: Any) -> Any:
        assert client.wait_for_service(TIMEOUT)
        future = client.call_async(request)
        self.wait_until(future.done)
        return future.result()


class Robot:
    """Both nodes, spinning."""

    def __init__(self, load: LoadSegmenter | None = None, **parameters: Any) -> None:
        self.segmenters: list[FakeSegmenter] = []
        overrides = {"checkpoint": "fake", **{name.replace("__", "."): value for name, value in parameters.items()}}
        self.node = SegmentNode(
            load or self._load, parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()]
        )
        self.started = self.node.start()
        self.world = Surroundings()
        self._threads = [Spinning(self.world), Spinning(self.node)]
        if self.started and overrides.get("autostart", True):
            self.wait_until_connected()

    def _load(self, *, checkpoint: str, settings: AdaptationSettings, **_how: object) -> FakeSegmenter:
        if "fault" in checkpoint:
            raise TypeError("a fault in the program")
        if "broken" in checkpoint:
            raise CheckpointError(f"{checkpoint}: the weights do not fit the manifest")
        self.segmenters.append(FakeSegmenter(settings))
        return self.segmenters[-1]

    @property
    def segmenter(self) -> FakeSegmenter:
        return self.segmenters[-1]

    def wait_until_connected(self) -> None:
        self.world.wait_until(self._is_connected)

    def _is_connected(self) -> bool:
        subscriptions = {s.topic_name: s for s in self.node.subscriptions}
        pictures = {self.node.resolve_topic_name(t) for c in self.node._settings.cameras for t in c.picture_topics}
        published = pictures & {self.world.images.topic_name, self.world.files.topic_name}
        if published and not published & subscriptions.keys():
            return False
        ours = (self.world.points, self.world.images, self.world.files, self.world.infos)
        inputs = [p.get_subscription_count() for p in ours if p.topic_name in subscriptions]
        answers = ("/segmentation", "/report", "/diagnostics")
        outputs = [p.get_subscription_count() for p in self.node.publishers if p.topic_name.endswith(answers)]
        return min(inputs) > 0 and min(outputs) > 0

    def send_static(self, *transforms: TransformStamped) -> None:
        """Publish transforms and wait until the node knows them."""
        self.world.static_transforms.sendTransform(list(transforms))
        for each in transforms:
            self.world.wait_until(lambda t=each: self.knows(t.header.frame_id, t.child_frame_id))

    def knows(self, parent: str, child: str, stamp: int = 0) -> bool:
        return self.node._buffer.can_transform(parent, child, Time(nanoseconds=stamp))

    def stand(self) -> None:
        """The LiDAR 2 m above the ground, the camera at the same place."""
        self.send_static(transform(BASE, LIDAR, (0, 0, 2)), transform(LIDAR, CAMERA_FRAME, wxyz=LIDAR_FROM_OPTICAL))

    def calibrate(self, info: CameraInfo) -> None:
        """Publish a CameraInfo and wait until the node has it."""
        self.world.infos.publish(info)
        self.world.wait_until(lambda: info in self.node._assembler._infos.values())

    def show(self, picture: Image | CompressedImage) -> None:
        """Publish a picture and wait until the node has it."""
        before = self.count("camera front", RECEIVED)
        publisher = self.world.files if isinstance(picture, CompressedImage) else self.world.images
        publisher.publish(picture)
        self.world.wait_until(lambda: self.count("camera front", RECEIVED) > before)

    def answer(self, scan: PointCloud2) -> PointCloud2:
        """Publish a scan and wait for its answer."""
        expected = len(self.world.clouds) + 1
        self.world.points.publish(scan)
        return self.world.wait_for_clouds(expected)[-1]

    def count(self, subject: str, event: str) -> int:
        return self.node._counts.snapshot().counts[subject, event]

    def wait_for_count(self, subject: str, event: str, number: int = 1) -> None:
        self.world.wait_until(lambda: self.count(subject, event) >= number)

    def close(self) -> None:
        for segmenter in self.segmenters:
            segmenter.may_go_on.set()
        for thread in self._threads:
            thread.stop()
        self.node.destroy_node()
        self.world.destroy_node()


class Spinning:
    """A node spinning in a thread."""

    def __init__(self, node: Node) -> None:
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def stop(self) -> None:
        self._executor.shutdown()
        self._thread.join(TIMEOUT)
