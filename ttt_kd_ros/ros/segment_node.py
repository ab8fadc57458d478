"""The node `segment`: scans and pictures in, segmented clouds out."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, ClockType
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.task import Future
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger
from tf2_ros import Buffer, TransformListener

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import Frame, Segmentation
from ttt_kd_ros.ros.assembly import FrameAssembler, ImageMessage, ScanJob
from ttt_kd_ros.ros.collector import Collector
from ttt_kd_ros.ros.counts import (
    PUBLISHED,
    SCANS,
    SEGMENTER,
    Counts,
    Level,
    Snapshot,
    Status,
    camera_subject,
    status,
)
from ttt_kd_ros.ros.declaration import declare_parameters, read_value
from ttt_kd_ros.ros.diagnostics import diagnostics_message, report_message
from ttt_kd_ros.ros.messages import packed_colors, stamp_of, write_cloud
from ttt_kd_ros.ros.model_thread import ModelThread
from ttt_kd_ros.ros.parameters import CameraSettings, settings_from
from ttt_kd_ros.ros.transforms import Transforms
from ttt_kd_ros.segmenter import Segmenter, load_segmenter

NAME = "segment"
CLOCK_JUMP_NS = 1_000_000_000
DIAGNOSTICS_PERIOD_S = 1.0
SHUTDOWN_S = 2.0
OUTPUT_QOS = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


class LoadSegmenter(Protocol):
    """`load_segmenter`, or what stands for it."""

    def __call__(
        self, checkpoint: str | Path, *, settings: AdaptationSettings, teacher: str, device: str, threads: int
    ) -> Segmenter:
        """Load a segmenter."""


class SegmentNode(Node):
    """Segments every scan it can and says why it could not segment others.

    Callbacks collect messages as they are; one worker thread waits for transforms, converts, segments and publishes.
    A node is made, then loaded, then subscribed. Its future `broken` is done if the worker met a fault in the program.

    Parameters
    ----------
    load
        Makes the segmenter.
    options
        Of `rclpy.node.Node`.

    Raises
    ------
    InputError, rclpy.exceptions.ParameterException
        If a parameter has a value that is not allowed.
    """

    def __init__(self, load: LoadSegmenter = load_segmenter, **options: Any) -> None:
        super().__init__(NAME, **options)
        self._load_segmenter = load
        self._values = declare_parameters(self)
        self._settings = settings_from(self._values)
        self._counts = Counts()
        self._collector: Collector[PointCloud2, ImageMessage] = Collector(
            self._settings.timings, self._settings.image_wait_ns, self._counts
        )
        self._model_thread = ModelThread()
        self._worker = threading.Thread(target=self._work, name="segment", daemon=True)
        self.broken: Future[None] = Future()
        self._last_scan_stamp = 0
        self._reported = Snapshot()
        self._last_causes: dict[str, tuple[str, ...]] = {}

    def load(self) -> None:
        """Load the model.

        Raises
        ------
        InputError
            If the checkpoint, its teacher or the device cannot be used.
        """
        settings = self._settings
        self._segmenter = self._model_thread.run(
            self._load_segmenter,
            settings.checkpoint,
            settings=settings.adaptation,
            teacher=settings.teacher,
            device=settings.device,
            threads=settings.threads,
        )
        self._colors = packed_colors(self._segmenter.classes.palette())

    def subscribe(self) -> None:
        """Begin to answer scans."""
        self._segmentations = self.create_publisher(PointCloud2, "~/segmentation", OUTPUT_QOS)
        self._reports = self.create_publisher(DiagnosticArray, "~/report", OUTPUT_QOS)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", OUTPUT_QOS)
        self._buffer = Buffer()
        self._listener = TransformListener(self._buffer, self)
        transforms = Transforms(self._buffer, self._settings.base_frame, self._settings.fixed_frame)
        self._assembler = FrameAssembler(transforms, self._counts)
        self._worker.start()
        for camera in self._settings.cameras:
            self._subscribe_camera(camera)
        self.create_subscription(PointCloud2, self._settings.points_topic, self._on_scan, qos_profile_sensor_data)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._on_diagnostics, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.add_on_set_parameters_callback(self._on_parameters)
        self.get_logger().info(f"ready: classes {', '.join(self._segmenter.classes.names)}")

    def _subscribe_camera(self, camera: CameraSettings) -> None:
        on_info = partial(self._assembler.set_camera_info, camera.name)
        self.create_subscription(CameraInfo, camera.info_topic, on_info, qos_profile_sensor_data)
        kind = CompressedImage if camera.compressed else Image
        on_picture = partial(self._on_picture, camera.name)
        self.create_subscription(kind, camera.picture_topic, on_picture, qos_profile_sensor_data)

    def close(self) -> None:
        """End the worker after the scan that it is at."""
        self._collector.close()
        if self._worker.is_alive():
            self._worker.join(SHUTDOWN_S)
        self._model_thread.close(timeout=0)

    def destroy_node(self) -> None:
        """Close and free everything."""
        self.close()
        super().destroy_node()

    def _on_scan(self, scan: PointCloud2) -> None:
        stamp = stamp_of(scan)
        if stamp < self._last_scan_stamp - CLOCK_JUMP_NS:
            self.get_logger().warning("stamps of scans went back; transforms from before are forgotten")
            self._buffer.clear()
        self._last_scan_stamp = stamp
        self._collector.add_scan(stamp, scan)

    def _on_picture(self, camera: str, picture: ImageMessage) -> None:
        self._collector.add_picture(camera, stamp_of(picture), picture)

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._model_thread.run(self._segmenter.reset)
        response.success = True
        response.message = "the source weights are back"
        return response

    def _on_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        """Check all changes together; apply them if they are all right."""
        values = self._values | {parameter.name: read_value(parameter) for parameter in parameters}
        try:
            settings = settings_from(values)
            if settings.adaptation != self._settings.adaptation:
                self._model_thread.run(self._segmenter.configure, settings.adaptation)
        except InputError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self._collector.configure(settings.timings, settings.image_wait_ns)
        self._values, self._settings = values, settings
        return SetParametersResult(successful=True)

    def _on_diagnostics(self) -> None:
        topics = {SCANS: self._settings.points_topic}
        topics |= {camera_subject(camera.name): camera.picture_topic for camera in self._settings.cameras}
        now = self._counts.snapshot()
        statuses = [status(subject, topic, now, self._reported) for subject, topic in topics.items()]
        self._reported = now
        self._diagnostics.publish(diagnostics_message(self.get_name(), statuses, self.get_clock().now().to_msg()))
        for each in statuses:
            self._log_change(each)

    def _log_change(self, current: Status) -> None:
        """Log what goes wrong when it begins and when it ends."""
        if current.causes == self._last_causes.get(current.subject, ()):
            return
        self._last_causes[current.subject] = current.causes
        text = f"{current.subject}: {current.message}"
        if current.level == Level.OK:
            self.get_logger().info(text)
        elif current.level == Level.WARN:
            self.get_logger().warning(text)
        else:
            self.get_logger().error(text)

    def _work(self) -> None:
        """Answer jobs until the collector is closed; a fault in the program breaks the node."""
        finished = False
        try:
            while (job := self._collector.wait()) is not None:
                self._answer(job)
            finished = True
        except RuntimeError:
            if self.context.ok():
                raise
            finished = True  # the middleware was shut down before the answer could be published
        finally:
            if not finished:
                self.broken.set_result(None)

    def _answer(self, job: ScanJob) -> None:
        start = time.monotonic_ns()
        frame = self._assembler.assemble(job, self._settings)
        if frame is None:
            return
        prepared = time.monotonic_ns()
        segmentation = self._segment(frame)
        if segmentation is None:
            return
        segmented = time.monotonic_ns()
        cloud = write_cloud(job.scan, segmentation, self._colors)
        self._segmentations.publish(cloud)
        self._counts.add(SCANS, PUBLISHED)
        end = time.monotonic_ns()
        timings = {
            "wait": start - job.arrival,
            "prepare": prepared - start,
            "publish": end - segmented,
            "total": end - job.arrival,
        }
        timings_ms = {**segmentation.timings_ms, **{stage: ns / 1e6 for stage, ns in timings.items()}}
        cameras = [view.name for view in frame.views]
        report = segmentation.adaptation
        self._reports.publish(report_message(self.get_name(), job.scan.header, report, cameras, timings_ms))

    def _segment(self, frame: Frame) -> Segmentation | None:
        try:
            return self._model_thread.run(self._segmenter.segment, frame)
        except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:
            self._counts.add(SCANS, SEGMENTER, f"{type(error).__name__}: {error}")
            return None


def main(args: list[str] | None = None, load: LoadSegmenter = load_segmenter) -> int:
    """Run the node until it is interrupted; the exit code is 0 then, and 1 if it could not start or broke."""
    rclpy.init(args=args)
    try:
        return _run(load)
    except (InputError, ParameterException, NameValidationException) as error:
        get_logger(NAME).fatal(" ".join(str(error).split()))
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    finally:
        rclpy.try_shutdown()


def _run(load: LoadSegmenter) -> int:
    executor = SingleThreadedExecutor()
    node = SegmentNode(load)
    executor.add_node(node)
    try:
        node.load()
        node.subscribe()
        executor.spin_until_future_complete(node.broken)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        if rclpy.ok():  # else the middleware was shut down under a callback
            raise
    finally:
        node.destroy_node()
    return int(node.broken.done())


if __name__ == "__main__":
    sys.exit(main())
