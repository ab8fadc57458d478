"""What may compute the parts of the network."""

SPARSE_BACKENDS = ("auto", "torch", "spconv", "triton")
"""Of sparse convolutions; see `ttt_kd_ros.model.sparse_backend`."""
TEACHER_BACKENDS = ("torch", "openvino")
"""Of the image model; see `ttt_kd_ros.teacher.load`."""
