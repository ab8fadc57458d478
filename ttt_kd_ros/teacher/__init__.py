"""Frozen image models whose features the 3D network learns to predict."""

from ttt_kd_ros.teacher.features import FeatureGrid, sample
from ttt_kd_ros.teacher.load import Teacher, load_teacher

__all__ = ["FeatureGrid", "Teacher", "load_teacher", "sample"]
