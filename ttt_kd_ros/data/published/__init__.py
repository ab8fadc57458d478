"""Readers for data sets as their authors publish them: one module for each."""

from ttt_kd_ros.data.published.a2d2 import A2D2
from ttt_kd_ros.data.published.dataset import DataSet
from ttt_kd_ros.data.published.matterport3d import Matterport3D
from ttt_kd_ros.data.published.nuscenes import NuScenes
from ttt_kd_ros.data.published.pandaset import PandaSet
from ttt_kd_ros.data.published.s3dis import S3DIS
from ttt_kd_ros.data.published.scannet import ScanNet
from ttt_kd_ros.data.published.semantickitti import SemanticKitti

DATA_SETS: tuple[type[DataSet], ...] = (SemanticKitti, NuScenes, A2D2, PandaSet, Matterport3D, ScanNet, S3DIS)
"""In the order in which they are asked whether a directory is theirs."""
