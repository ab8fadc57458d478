"""The node `segment`: scans and pictures in, segmented clouds out."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn, TypeAlias

import cv2
import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.exceptions import NameValidationException, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter
from rclpy.task import Future
from rclpy.validate_topic_name import validate_topic_name
from sensor_msgs.msg import PointCloud2
from tf2_ros import Buffer

from ttt_kd_ros.adaptation.cost import RunningCost
from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.device import free_memory, freeze_memory
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.frame import Frame, Segmentation
from ttt_kd_ros.ros.assembly import FrameAssembler, ImageMessage, ScanJob
from ttt_kd_ros.ros.collector import Collector
from ttt_kd_ros.ros.counts import PUBLISHED, SCANS, SEGMENTER, Counts, count_adaptation
from ttt_kd_ros.ros.declaration import declare_parameters, read_value, unknown_parameters
from ttt_kd_ros.ros.health import Health
from ttt_kd_ros.ros.inputs import Inputs
from ttt_kd_ros.ros.later_pictures import LaterPictures
from ttt_kd_ros.ros.legend import Legend
from ttt_kd_ros.ros.model import Model
from ttt_kd_ros.ros.model_thread import ModelThread
from ttt_kd_ros.ros.names import NODE, READY
from ttt_kd_ros.ros.outputs import Outputs
from ttt_kd_ros.ros.parameters import NodeSettings, Value, all_parameters, settings_from
from ttt_kd_ros.ros.qos import Topics
from ttt_kd_ros.ros.services import Services
from ttt_kd_ros.ros.transforms import Transforms
from ttt_kd_ros.ros.worker import Worker
from ttt_kd_ros.schedule import ScheduledSegmenter, load_scheduled
from ttt_kd_ros.segmenter import ADAPTATION_STAGES

FAILURES = (ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError, cv2.error)
"""What computing with one scan's numbers can end in."""
POLL_S = 0.1
SHUTDOWN_S = 1.0
"""How long the node may take to end in order."""


LoadSegmenter: TypeAlias = Callable[..., ScheduledSegmenter]
"""`load_scheduled`, or what stands for it; called with `NodeSettings.loading`."""


class SegmentNode(LifecycleNode):
    """Segments every scan it can and says why it could not segment others.

    Configured, it has loaded its model and made its publishers; active, it subscribes. Callbacks collect messages as
    they are; one worker thread waits for transforms, converts, segments and publishes. The adapted weights stay until
    it is cleaned up. Its future `broken` is done if the worker met a fault in the program.

    Parameters
    ----------
    load
        Makes the segmenter.
    options
        Of `rclpy.lifecycle.LifecycleNode`.

    Raises
    ------
    InputError, rclpy.exceptions.ParameterException
        If a parameter has a value that is not allowed.
    """

    def __init__(self, load: LoadSegmenter = load_scheduled, **options: Any) -> None:
        super().__init__(NODE, **options)
        self._load_segmenter = load
        self._counts = Counts()
        self._labelling, self._publishing = RunningCost(), RunningCost()
        self._model_thread = ModelThread()
        self._model: Model | None = None
        self._collector: Collector[PointCloud2, ImageMessage] | None = None
        self._undo_configure = contextlib.ExitStack()
        self._undo_activate = contextlib.ExitStack()
        self.broken: Future[None] = Future()
        try:
            self._values = declare_parameters(self)
            self._settings = settings_from(self._values)
        except BaseException:
            self.destroy_node()
            raise
        if unknown := unknown_parameters(self):
            self.get_logger().warning(
                f"ignored, for the node has no such parameters: {', '.join(unknown)}; `ros2 param list` shows "
                "those that it has, a camera's once the parameter 'cameras' names it"
            )
        Services(self, self._loaded_model, lambda: self._settings.weights_path)
        self.add_on_set_parameters_callback(self._on_parameters)

    def start(self) -> bool:
        """Configure and activate if the parameter `autostart` says so; returns whether nothing failed."""
        steps = (self.trigger_configure, self.trigger_activate) if self._settings.autostart else ()
        return all(step() is TransitionCallbackReturn.SUCCESS for step in steps)

    def stop(self) -> None:
        """Let the scan that is being segmented end soon; for the end of the node, from any thread."""
        if (model := self._model) is not None:
            model.stop()

    def destroy_node(self) -> None:
        """Free everything."""
        self.stop()
        self._undo_activate.close()
        self._undo_configure.close()
        self._model_thread.close()
        self.leave()

    def leave(self) -> None:
        """Leave the middleware and free its shared memory, whatever the node still computes; from any thread."""
        super().destroy_node()
        self._state_machine.destroy_when_not_in_use()  # rclpy forgets it, and it keeps the node

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and check the model, make the publishers."""
        return self._attempt("configure", self._configure, self._undo_configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Begin to answer scans."""
        return self._attempt("activate", self._activate, self._undo_activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Answer no more scans after the one in work; the adapted weights stay."""
        self._undo_activate.close()
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._undo_configure.close()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End what is active and free the model."""
        return self.on_error(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Go back to where the node can be configured again."""
        self._undo_activate.close()
        self._undo_configure.close()
        return TransitionCallbackReturn.SUCCESS

    def _attempt(self, what: str, step: Callable[[], None], undo: contextlib.ExitStack) -> TransitionCallbackReturn:
        """Take a step; what it began is undone if the user has to mend something first."""
        try:
            step()
        except (InputError, ParameterException, NameValidationException) as error:
            undo.close()
            self.get_logger().error(f"cannot {what}: {' '.join(str(error).split())}")
            return TransitionCallbackReturn.FAILURE
        except BaseException:
            if self.context.ok():
                self.get_logger().error(traceback.format_exc())  # rclpy would not say what it was
            raise
        return TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        settings, undo = self._settings, self._undo_configure
        for topic in settings.input_topics:
            validate_topic_name(topic)
        load = partial(self._load_segmenter, **settings.loading)
        undo.callback(self._forget_model)
        self._model = Model(load, self._model_thread, settings.adaptation)
        self._outgoing = Topics(self)
        undo.callback(self._outgoing.close)
        self._outputs = Outputs(self.get_name(), self._outgoing, settings, self._model.classes)
        self._buffer = Buffer()
        transforms = Transforms(self._buffer, settings.base_frame, settings.fixed_frame)
        self._assembler = FrameAssembler(transforms, self._counts)
        undo.callback(gc.unfreeze)
        freeze_memory()

    def _activate(self) -> None:
        settings, undo, model = self._settings, self._undo_activate, self._loaded_model()
        collector: Collector[PointCloud2, ImageMessage] = Collector(
            settings.timings, settings.image_wait_ns, self._counts, at_once=settings.adaptation.labels_at_once
        )
        self._collector = collector
        self._limit_wait()
        self._buffer.clear()  # what was heard before the node was inactive may be of another time
        self._later_pictures = LaterPictures(collector, self._assembler)
        undo.callback(Worker(collector.wait, self._answer, self._break, self.context).join)
        undo.callback(collector.close)
        incoming = Topics(self)
        undo.callback(incoming.close)
        inputs = Inputs(self, incoming, settings, collector, self._assembler, self._buffer)
        undo.callback(inputs.close)
        topics = (incoming, self._outgoing)
        health = Health(self, self._outputs.diagnostics, self._counts, collector.is_idle, inputs.sources, topics)
        undo.callback(health.close)
        undo.callback(Legend(self, self._outputs.legend, model.classes, settings.base_frame).close)
        self.get_logger().info(f"{READY} {', '.join(model.classes.names)}")

    def _loaded_model(self) -> Model:
        if self._model is None:
            raise InputError("the node is not configured and has no model")
        return self._model

    def _forget_model(self) -> None:
        if self._model is not None:
            self._model.close()
        self._model = None
        self._model_thread.run(free_memory)

    def _break(self) -> None:
        self.broken.set_result(None)

    def _on_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        """Check all changes together; apply them if they are all right."""
        changes = {p.name: read_value(p) for p in parameters if p.name in self._values}
        try:
            self._change(changes)
        except InputError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _change(self, changes: dict[str, Value]) -> None:
        changed = {name for name, value in changes.items() if value != self._values[name]}
        live = {parameter.name for parameter in all_parameters(self._settings.camera_names) if parameter.live}
        if self._model is not None and (late := sorted(changed - live)):
            raise InputError(
                f"parameter {', '.join(late)} is read when the node is configured: clean the node up before "
                f"(ros2 lifecycle set {self.get_fully_qualified_name()} cleanup)"
            )
        values = self._values | changes
        settings = settings_from(values)
        if self._model is not None:
            self._model.configure(settings.adaptation)
        if self._collector is not None:
            self._collector.configure(settings.timings, settings.image_wait_ns, settings.adaptation.labels_at_once)
        self._values, self._settings = values, settings
        self._limit_wait()

    def _answer(self, job: ScanJob) -> None:
        """Segment a scan and publish what came of it; runs on the worker."""
        settings, model = self._settings, self._loaded_model()
        try:
            labelled = self._label(job, settings, model)
        except FAILURES as error:
            self._counts.add(SCANS, SEGMENTER, f"{type(error).__name__}: {error}")
            return
        if labelled is not None:
            self._tell(job, *labelled, settings, model)
        self._limit_wait()

    def _label(
        self, job: ScanJob, settings: NodeSettings, model: Model
    ) -> tuple[Frame, Segmentation, dict[str, float]] | None:
        """Publish a scan's labels; the frame, the labels and the stages' times [ms], if it could be read."""
        start = time.monotonic_ns()
        wanted = replace(job, pictures={}) if settings.adaptation.labels_at_once else job
        patience = self._patience(settings.adaptation)
        frame = self._assembler.assemble(wanted, settings, job.arrival + patience)
        if frame is None:
            return None
        prepared = time.monotonic_ns()
        segmentation = model.segment(frame, self._due(job, settings.adaptation.deadline_ms))
        segmented = time.monotonic_ns()
        self._outputs.publish_cloud(job, segmentation, settings.pass_fields)
        self._counts.add(SCANS, PUBLISHED)
        count_adaptation(self._counts, segmentation.adaptation)
        end = time.monotonic_ns()
        adapting = sum(segmentation.timings_ms.get(stage, 0.0) for stage in ADAPTATION_STAGES) / 1e3
        self._labelling.add((end - prepared) / 1e9 - adapting)
        self._publishing.add((end - segmented) / 1e9)
        stages = {
            "wait": start - job.arrival,
            "prepare": prepared - start,
            "publish": end - segmented,
            "total": end - job.arrival,
        }
        return frame, segmentation, {**segmentation.timings_ms, **{name: ns / 1e6 for name, ns in stages.items()}}

    def _tell(
        self,
        job: ScanJob,
        frame: Frame,
        segmentation: Segmentation,
        timings_ms: dict[str, float],
        settings: NodeSettings,
        model: Model,
    ) -> None:
        """Say how a scan was labelled, show it and learn from it."""
        try:
            shown = self._shown(job, frame, settings)
            self._outputs.publish_report(job, shown, segmentation, timings_ms)
            self._learn(job, frame, settings, model)
            self._outputs.publish_overlays(job, shown, segmentation, model)
        except FAILURES as error:
            self.get_logger().warning(
                f"a scan was labelled, but not reported or shown: {error}", throttle_duration_sec=10
            )

    def _limit_wait(self) -> None:
        """Let scans wait for pictures no longer than they can be labelled in time."""
        if self._collector is not None:
            self._collector.limit_wait(self._patience(self._settings.adaptation))

    def _patience(self, adaptation: AdaptationSettings) -> float:
        """How long from its arrival a scan may wait for pictures and transforms to be labelled in time [ns]."""
        if not adaptation.deadline_ms or adaptation.labels_at_once:
            return math.inf
        return max(0.0, adaptation.deadline_ms * 1e6 - self._labelling.estimate * 1e9)

    def _shown(self, job: ScanJob, frame: Frame, settings: NodeSettings) -> Frame:
        """With the pictures that are there if someone watches overlays; those to be learned from count later."""
        if not settings.adaptation.labels_at_once or not self._outputs.overlays_are_watched:
            return frame
        counts = Counts() if settings.adaptation.in_background else self._counts
        return replace(frame, views=self._assembler.views(job, settings, counts))

    def _learn(self, job: ScanJob, frame: Frame, settings: NodeSettings, model: Model) -> None:
        """In the background: let the latest frame that has its pictures by now wait for training."""
        if not settings.adaptation.in_background:
            self._later_pictures.clear()
            return
        self._later_pictures.add(job, frame)
        if (paired := self._later_pictures.take(settings)) is not None:
            model.learn(paired)

    def _due(self, job: ScanJob, deadline_ms: float) -> float:
        """When the segmenter must be done with a scan for it to be published in time, on the monotonic clock [s]."""
        return job.arrival / 1e9 + deadline_ms / 1e3 - self._publishing.estimate if deadline_ms else math.inf


def main(args: list[str] | None = None, load: LoadSegmenter = load_scheduled) -> NoReturn:
    """Run the node until it is interrupted, then exit with 0; with 1 if it could not start or broke.

    The process ends at once, without the interpreter's clearing up: that frees torch for longer than a robot should
    wait, and crashes beside a thread that still computes.
    """
    rclpy.init(args=args)
    try:
        code = _run(SegmentNode(load))
    except (InputError, ParameterException, NameValidationException) as error:
        get_logger(NODE).fatal(" ".join(str(error).split()))
        code = 1
    except KeyboardInterrupt:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _run(node: SegmentNode) -> int:
    """Let a thread serve the node: the main thread stays free for signals, however long the node computes."""
    life = _Life(node)
    threading.Thread(target=life.run, name="serve", daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        while node.context.ok() and not life.ended.wait(POLL_S):
            pass
    life.end()
    if not life.ended.wait(SHUTDOWN_S):
        node.leave()
    return life.exit_code


class _Life:
    """A node from its start to its end; the exit code is 1 if it could not start or broke."""

    def __init__(self, node: SegmentNode) -> None:
        self.exit_code = 0
        self.ended = threading.Event()
        self._node = node
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(node)

    def end(self) -> None:
        """Let the node end soon; the middleware is shut down."""
        self._node.stop()
        self._executor.wake()

    def run(self) -> None:
        """Serve the node."""
        try:
            self.exit_code = self._serve()
        except ExternalShutdownException:
            pass
        except BaseException:
            if self._node.context.ok():  # else the middleware was shut down under a callback
                self.exit_code = 1
                raise
        finally:
            self._node.destroy_node()
            self.ended.set()

    def _serve(self) -> int:
        if not self._node.start():
            return int(self._node.context.ok())  # else it was the end that it could not go on
        self._executor.spin_until_future_complete(self._node.broken)
        return int(self._node.broken.done())


if __name__ == "__main__":
    main()
