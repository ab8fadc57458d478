"""Small networks and scenes that the unit tests share."""

import pytest
import torch
from stripes import TINY_UNET

from ttt_kd_ros.adaptation.targets import PointTargets
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.model.network import Network, NetworkConfig, TeacherSpec
from ttt_kd_ros.sparse import products
from ttt_kd_ros.sparse.plain import PLAIN


@pytest.fixture(autouse=True)
def torch_computes_sparse_convolutions():
    """Whatever a test before has chosen."""
    products.choose(PLAIN)


@pytest.fixture
def network_config():
    return NetworkConfig(load_classes("street6"), TeacherSpec("stripes", "stripes", 0, 6), 0.5, 4, TINY_UNET)


@pytest.fixture
def network(network_config):
    torch.manual_seed(0)
    network = Network(network_config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture
def street_points():
    """Flat ground, a wall and a box, (N, 3) float32 in the base frame."""
    generator = torch.Generator().manual_seed(1)
    ground = torch.rand(4000, 3, generator=generator) * torch.tensor([40.0, 20.0, 0.05]) - torch.tensor([0.0, 10.0, 0])
    wall = torch.rand(1500, 3, generator=generator) * torch.tensor([40.0, 0.1, 5.0]) + torch.tensor([0.0, 8.0, 0])
    box = torch.rand(800, 3, generator=generator) * torch.tensor([4.0, 1.8, 1.5]) + torch.tensor([10.0, -1.0, 0])
    return torch.cat([ground, wall, box])


@pytest.fixture
def pairs(street_points):
    """Targets that depend on where a point is, for the points ahead."""
    rows = (street_points[:, 0] > 5).nonzero().squeeze(1)
    x, _, z = street_points[rows].unbind(1)
    return PointTargets(rows, torch.stack([torch.sin(x), torch.cos(x), z, 1 - z], dim=1))
