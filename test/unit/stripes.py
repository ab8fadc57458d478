"""A camera ahead, an image model that needs no weights and the size of a tiny network."""

import numpy as np
import torch

from ttt_kd_ros.frame import Camera, CameraView
from ttt_kd_ros.geometry.transforms import invert, rigid
from ttt_kd_ros.model.unet import UNetConfig
from ttt_kd_ros.teacher.features import FeatureGrid

TINY_UNET = UNetConfig(8, 3, (8, 12), (12, 8), (1, 1), (1, 1))
FORWARD_CAMERA = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])


class StripesTeacher:
    """An image model whose features are the colours of an 8 x 8 px cell and its place."""

    name, feature_size, long_side = "stripes", 6, 0

    def features(self, images):
        return [self._grids(image) for image in images]

    def _grids(self, image):
        cells = image[::8, ::8].permute(2, 0, 1).float() / 255
        rows, columns = (torch.linspace(-1, 1, size, device=cells.device) for size in cells.shape[1:])
        rows, columns = torch.meshgrid(rows, columns, indexing="ij")
        values = torch.cat([cells, torch.stack([rows, columns, rows * columns])])
        return (FeatureGrid(values, (1 / 8, 1 / 8), (-0.5, -0.5)),)


def camera_view(name="front", yaw=0.0):
    rng = np.random.default_rng(0)
    K = np.array([[300.0, 0, 159.5], [0, 300.0, 119.5], [0, 0, 1]])
    c, s = np.cos(yaw), np.sin(yaw)
    T_camera_base = rigid(FORWARD_CAMERA, np.zeros(3)) @ invert(
        rigid(np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]), np.array([0.0, 0.0, 1.5]))
    )
    return CameraView(name, rng.integers(0, 255, (240, 320, 3), dtype=np.uint8), Camera(320, 240, K), T_camera_base)
