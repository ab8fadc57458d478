"""Forward and backward passes on one scan, planned once and repeated without autograd.

A step of a small network on a CPU spends as long in Python and in autograd as in the products. A tape looks up all
arguments of the kernels and all memory beforehand; a pass is then a list of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from ttt_kd_ros.model.norm import LinearNorm
from ttt_kd_ros.sparse import native
from ttt_kd_ros.sparse.backend import NormedConvolution
from ttt_kd_ros.sparse.convolution import SparseConvolution
from ttt_kd_ros.sparse.fixed_norm import FixedNorm
from ttt_kd_ros.sparse.kernel_map import KernelMap

Calls = list[Callable[[], object]]


@dataclass(eq=False)
class Slot:
    """Where features are once a pass has come there.

    Parameters
    ----------
    value
        (V, C), the features.
    moves
        Whether weights that move lead there; if not, the features are there already.
    gradient
        (V, C), the loss's, if there is one.
    """

    value: Tensor
    moves: bool
    gradient: Tensor | None = None


class Tape:
    """The layers of a network in evaluation mode on one scan (`ttt_kd_ros.model.layers.Layers`), by the CPU's kernels.

    What no moving weight leads to is computed once, when it is set down.

    Parameters
    ----------
    weights
        The one tensor that all parameters that move are views of.
    """

    def __init__(self, weights: Tensor) -> None:
        self._address = weights.untyped_storage().data_ptr()
        self._gradient = torch.zeros_like(weights, requires_grad=False)
        self._layers: list[_Layer] = []
        self._forward: Calls = []
        self._backward: Calls = []
        self._memory = _Memory()

    def begin(self, features: Tensor) -> Slot:
        """The input (V, C) of the network."""
        return Slot(features.contiguous(), moves=False)

    def convolve(
        self,
        convolution: SparseConvolution,
        norm: nn.BatchNorm1d,
        features: Slot,
        kernel_map: KernelMap,
        residual: Slot | None = None,
    ) -> Slot:
        """See `Layers`."""
        layer = NormedConvolution(convolution.weight, FixedNorm.of(norm), kernel_map)
        gradients = self.gradient_of(layer.weight), *self.gradients_of(layer.norm)
        return self._add(_Convolution(layer, gradients, features, residual))

    def shortcut(self, module: nn.Module, features: Slot) -> Slot:
        """See `Layers`."""
        return self._add(_Linear(self, module, features)) if isinstance(module, LinearNorm) else features

    def concatenate(self, features: Slot, skip: Slot) -> Slot:
        """See `Layers`."""
        return self._add(_Concatenation((features, skip)))

    def select(self, features: Slot, rows: Tensor) -> Slot:
        """See `Layers`."""
        return self._add(_Selection(features, rows))

    @torch.no_grad()
    def _add(self, layer: _Layer) -> Slot:
        if layer.output.moves:
            self._layers.append(layer)
            self._forward.append(layer.forward)
        else:
            layer.forward()
        return layer.output

    def end(self, output: Slot) -> None:
        """Say what the output of the network is; nothing is added after it."""
        self._output = output
        output.gradient = self._memory.take(output.value)
        for layer in reversed(self._layers):
            if layer.output.gradient is not None:
                self._backward += layer.backward(layer.output.gradient, self._memory)

    def gradient_of(self, parameter: Tensor) -> Tensor | None:
        """Where the gradient of a parameter is once a backward pass is over; None if it does not move."""
        if parameter.untyped_storage().data_ptr() != self._address:
            return None
        first = parameter.storage_offset()
        return self._gradient[first : first + parameter.numel()].view_as(parameter)

    def gradients_of(self, norm: FixedNorm) -> tuple[Tensor | None, Tensor | None]:
        """The same of a norm's weight and bias."""
        return self.gradient_of(norm.weight), self.gradient_of(norm.bias)

    @torch.no_grad()
    def forward(self) -> Tensor:
        """The output (V, C) for the weights as they are, valid until the next pass."""
        for call in self._forward:
            call()
        return self._output.value.detach()

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient of the weights from the one (V, C) of the output of the last forward pass, valid until the next."""
        assert self._output.gradient is not None
        self._output.gradient.copy_(gradient)
        for call in self._backward:
            call()
        return self._gradient


class _Memory:
    """Memory of gradients, used again once they have been passed on."""

    def __init__(self) -> None:
        self._free: dict[torch.Size, list[Tensor]] = {}

    def take(self, like: Tensor) -> Tensor:
        free = self._free.get(like.shape)
        return free.pop() if free else torch.empty_like(like)

    def give_back(self, values: Tensor) -> None:
        self._free.setdefault(values.shape, []).append(values)


class _Layer(Protocol):
    """A layer on a tape."""

    output: Slot

    def forward(self) -> object:
        """Compute the output."""

    def backward(self, gradient: Tensor, memory: _Memory) -> Calls:
        """What takes the output's gradient to the inputs and to the weights; the gradient is used up."""


def _receive(slot: Slot, memory: _Memory) -> tuple[Tensor | None, bool]:
    """Where a layer puts the gradient of its input, if it is wanted, and whether another layer's is there already."""
    if not slot.moves:
        return None, False
    if slot.gradient is not None:
        return slot.gradient, True
    slot.gradient = memory.take(slot.value)
    return slot.gradient, False


class _Convolution:
    def __init__(
        self,
        layer: NormedConvolution,
        gradients: tuple[Tensor | None, Tensor | None, Tensor | None],
        features: Slot,
        residual: Slot | None = None,
        rectify: bool = True,
    ) -> None:
        self._layer, self._features, self._residual, self._rectify = layer, features, residual, rectify
        self._of_weight, self._of_scale, self._of_shift = gradients
        value = features.value.new_empty(layer.kernel_map.outputs, layer.weight.shape[2])
        moves = any(gradient is not None for gradient in gradients)
        self.output = Slot(value, moves or features.moves or (residual is not None and residual.moves))
        keep = self._of_weight is None and self._of_scale is not None
        self._convolved = torch.empty_like(value) if keep else None
        added = None if residual is None else residual.value
        convolved = value if self._convolved is None else self._convolved
        self.forward = native.forward(features.value, layer, added, convolved, value, rectify)

    def backward(self, gradient: Tensor, memory: _Memory) -> Calls:
        of_features, add = _receive(self._features, memory)
        of_shift = gradient.new_empty(gradient.shape[1]) if self._of_shift is None else self._of_shift
        output = self.output.value if self._rectify else None
        features = None if self._of_weight is None else self._features.value
        results = (of_features, self._of_weight, self._of_scale, of_shift, gradient)
        calls: Calls = [native.backward(gradient, output, self._convolved, features, self._layer, results, add)]
        return calls + self._pass_on(gradient, memory)

    def _pass_on(self, gradient: Tensor, memory: _Memory) -> Calls:
        """Give the gradient, which is that of the residual now, to it."""
        residual = self._residual
        if residual is None or not residual.moves:
            memory.give_back(gradient)
            return []
        if residual.gradient is None:
            residual.gradient = gradient
            return []
        memory.give_back(gradient)
        return [partial(residual.gradient.add_, gradient)]


class _Linear:
    """A linear layer with its norm: a convolution whose kernel has one offset, with the matrix turned round."""

    def __init__(self, tape: Tape, module: LinearNorm, features: Slot) -> None:
        self._weight, norm = module.linear.weight, FixedNorm.of(module.norm)
        self._of_weight = tape.gradient_of(self._weight)
        self._matrix = features.value.new_empty(1, *self._weight.T.shape)
        self._of_matrix = None if self._of_weight is None else torch.empty_like(self._matrix)
        gradients = self._of_matrix, *tape.gradients_of(norm)
        layer = NormedConvolution(self._matrix, norm, KernelMap.identity(len(features.value)))
        self._product = _Convolution(layer, gradients, features, rectify=False)
        self.output = self._product.output

    def forward(self) -> None:
        self._matrix[0].copy_(self._weight.T)
        self._product.forward()

    def backward(self, gradient: Tensor, memory: _Memory) -> Calls:
        calls = self._product.backward(gradient, memory)
        if self._of_weight is not None and self._of_matrix is not None:
            calls.append(partial(self._of_weight.copy_, self._of_matrix[0].T))
        return calls


class _Concatenation:
    def __init__(self, parts: Sequence[Slot]) -> None:
        self._parts = parts
        self._widths = [part.value.shape[1] for part in parts]
        first = parts[0].value
        self.output = Slot(first.new_empty(len(first), sum(self._widths)), any(part.moves for part in parts))

    def forward(self) -> None:
        torch.cat([part.value for part in self._parts], dim=1, out=self.output.value)

    def backward(self, gradient: Tensor, memory: _Memory) -> Calls:
        calls: Calls = []
        for part, of_output in zip(self._parts, gradient.split(self._widths, dim=1), strict=True):
            of_part, add = _receive(part, memory)
            if of_part is not None:
                calls.append(partial(of_part.add_ if add else of_part.copy_, of_output))
        memory.give_back(gradient)
        return calls


class _Selection:
    def __init__(self, features: Slot, rows: Tensor) -> None:
        self._features, self._rows = features, rows
        self.output = Slot(features.value.new_empty(len(rows), features.value.shape[1]), features.moves)

    def forward(self) -> None:
        torch.index_select(self._features.value, 0, self._rows, out=self.output.value)

    def backward(self, gradient: Tensor, memory: _Memory) -> Calls:
        of_features, add = _receive(self._features, memory)
        memory.give_back(gradient)
        if of_features is None:
            return []
        calls: Calls = [] if add else [of_features.zero_]
        return [*calls, partial(of_features.index_add_, 0, self._rows, gradient)]
