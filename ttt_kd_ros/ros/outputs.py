"""What the node publishes of each scan."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from ttt_kd_ros.classes import ClassList
from ttt_kd_ros.frame import Frame, Segmentation
from ttt_kd_ros.ros.assembly import ScanJob
from ttt_kd_ros.ros.diagnostics import report_message
from ttt_kd_ros.ros.messages import packed_colors, write_cloud
from ttt_kd_ros.ros.model import Model
from ttt_kd_ros.ros.overlay import draw_labels, image_message
from ttt_kd_ros.ros.parameters import NodeSettings
from ttt_kd_ros.ros.pass_through import with_fields_of
from ttt_kd_ros.ros.qos import Topics


class Outputs:
    """Publishers of segmented clouds, reports and overlays, and of what goes out beside the scans.

    Parameters
    ----------
    name
        Name of the node.
    topics
        Makes the publishers.
    settings
        Which cameras there are.
    classes
        What the labels mean.
    """

    def __init__(self, name: str, topics: Topics, settings: NodeSettings, classes: ClassList) -> None:
        self._name = name
        self._palette = classes.palette()
        self._colors = packed_colors(self._palette)
        self._segmentations = topics.advertise(PointCloud2, "~/segmentation")
        self._reports = topics.advertise(DiagnosticArray, "~/report")
        self._overlays = {
            camera.name: topics.advertise(Image, f"~/overlay/{camera.name}") for camera in settings.cameras
        }
        self.diagnostics = topics.advertise(DiagnosticArray, "/diagnostics")
        self.legend = topics.advertise(MarkerArray, "~/legend")

    @property
    def overlays_are_watched(self) -> bool:
        """Whether someone looks at the overlay of a camera."""
        return any(publisher.get_subscription_count() for publisher in self._overlays.values())

    def publish_cloud(self, job: ScanJob, segmentation: Segmentation, pass_fields: bool) -> None:
        """Publish the segmented cloud, with the fields of the scan if wished."""
        cloud = write_cloud(job.scan, segmentation, self._colors)
        self._segmentations.publish(with_fields_of(job.scan, cloud) if pass_fields else cloud)

    def publish_report(
        self, job: ScanJob, frame: Frame, segmentation: Segmentation, timings_ms: Mapping[str, float]
    ) -> None:
        """Publish what was done with a scan."""
        cameras = [view.name for view in frame.views]
        report = report_message(self._name, job.scan.header, segmentation.adaptation, cameras, timings_ms)
        self._reports.publish(report)

    def publish_overlays(self, job: ScanJob, frame: Frame, segmentation: Segmentation, model: Model) -> None:
        """Publish the labels over each picture that someone looks at."""
        for view in frame.views:
            publisher = self._overlays[view.name]
            if publisher.get_subscription_count():
                seen = model.seen_points(view, frame.scan.points)
                drawn = draw_labels(view.image, seen, segmentation.labels, self._palette)
                publisher.publish(image_message(job.pictures[view.name].message.header, drawn))
