"""What may compute the parts of the network."""

SPARSE_BACKENDS = ("auto", "torch", "native", "spconv", "triton")
"""Of sparse convolutions; see `ttt_kd_ros.model.sparse_backend`."""
MATMUL_PRECISIONS = ("highest", "high")
"""Of products of float32 matrices on GPUs, as `torch.set_float32_matmul_precision` names them."""
TEACHER_BACKENDS = ("torch", "openvino")
"""Of the image model; see `ttt_kd_ros.teacher.load`."""
MAX_THREADS = 1024
"""Of a process; many more than a machine can start would end it."""
