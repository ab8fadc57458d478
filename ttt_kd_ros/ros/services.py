"""The node's services."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rclpy.node import Node
from std_srvs.srv import SetBool, Trigger

from ttt_kd_ros.errors import InputError
from ttt_kd_ros.ros.model import Model


class Services:
    """Reset, pause, save and load; a request that cannot be met is answered with the reason.

    Parameters
    ----------
    node
        Owner of the services.
    model
        What they act on; raises `InputError` while there is none.
    weights_path
        File to save to and load from.
    """

    def __init__(self, node: Node, model: Callable[[], Model], weights_path: Callable[[], str]) -> None:
        self._model = model
        self._weights_path = weights_path
        node.create_service(Trigger, "~/reset", self._service(lambda _: self._reset()))
        node.create_service(SetBool, "~/pause", self._service(lambda request: self._pause(request.data)))
        node.create_service(Trigger, "~/save_weights", self._service(lambda _: self._save()))
        node.create_service(Trigger, "~/load_weights", self._service(lambda _: self._load()))

    def _service(self, action: Callable[[Any], str]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            try:
                response.message = action(request)
            except InputError as error:
                response.message = str(error)
            else:
                response.success = True
            return response

        return answer

    def _reset(self) -> str:
        self._model().reset()
        return "the source weights are back"

    def _pause(self, paused: bool) -> str:
        self._model().pause(paused)
        return "adaptation is paused" if paused else "adaptation goes on"

    def _save(self) -> str:
        path = self._weights_path()
        self._model().save(path)
        return f"the weights are in {Path(path).resolve()}"

    def _load(self) -> str:
        path = self._weights_path()
        self._model().load(path)
        return f"the weights are those of {Path(path).resolve()}"
