"""Voxels, kernel maps and sparse convolutions."""

BACKENDS = ("auto", "torch", "spconv")
"""What may compute sparse convolutions (see `ttt_kd_ros.model.sparse_backend`)."""
