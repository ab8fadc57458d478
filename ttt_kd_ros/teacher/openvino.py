"""A teacher's network computed by OpenVINO, on CPUs twice as fast as PyTorch with small convolutions."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ttt_kd_ros.errors import TeacherError


class OpenVinoNetwork(nn.Module):
    """The outputs of an image network on the CPU, in single precision.

    The network is translated once, or once for each size of pictures; that takes seconds.

    Parameters
    ----------
    network
        Maps (1, 3, H, W) float32 to one (1, C, h, w) tensor per level; on the CPU.
    any_size
        Whether its trace for one size is right for all, as that of convolutions is.

    Raises
    ------
    TeacherError
        If OpenVINO is not installed.
    """

    def __init__(self, network: nn.Module, any_size: bool) -> None:
        super().__init__()
        try:
            self._openvino: Any = import_module("openvino")
            self._decoder: Any = import_module("openvino.frontend.pytorch.ts_decoder")
        except ImportError as error:
            raise TeacherError(f"OpenVINO cannot be used ({error}); pip install openvino") from error
        self._network = network
        self._any_size = any_size
        self._requests: dict[tuple[int, ...], Any] = {}

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """(1, C, h, w) float32 of each level for a picture (1, 3, H, W) float32."""
        shape = (1, 3, -1, -1) if self._any_size else tuple(picture.shape)
        if shape not in self._requests:
            self._requests[shape] = self._translate(picture, shape)
        results = self._requests[shape].infer([picture.contiguous().numpy()])
        return tuple(torch.from_numpy(results[output]) for output in range(len(results)))

    def _translate(self, picture: Tensor, shape: tuple[int, ...]) -> Any:
        frontend = self._openvino.frontend.FrontEndManager().load_by_framework("pytorch")
        with warnings.catch_warnings():  # about what the trace of a network of fixed size need not know
            warnings.simplefilter("ignore")
            decoder = self._decoder.TorchScriptPythonDecoder(self._network, example_input=picture)
        model = frontend.convert(frontend.load(decoder))  # openvino.convert_model would report its use
        model.reshape(list(shape))
        how = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
        return self._openvino.Core().compile_model(model, "CPU", how).create_infer_request()
