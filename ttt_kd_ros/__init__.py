"""Test-time training of LiDAR segmentation by knowledge distillation from a frozen image model."""

__version__ = "0.1.0"
