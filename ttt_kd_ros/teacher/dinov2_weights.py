"""Weights of DINOv2 as its authors publish them (`dinov2_vits14_pretrain.pth` and its kin)."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Collection, Mapping
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttt_kd_ros.errors import TeacherError

HEAD_SIZE = 64
"""Channels of an attention head in every model of the authors; the file does not tell."""

_MODEL_NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj.weight": "embeddings.patch_embeddings.projection.weight",
    "patch_embed.proj.bias": "embeddings.patch_embeddings.projection.bias",
    "norm.weight": "layernorm.weight",
    "norm.bias": "layernorm.bias",
}
_LAYER_NAMES = {
    "norm1": "norm1",
    "norm2": "norm2",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "ls2.gamma": "layer_scale2.lambda1",
}
_QKV = "attn.qkv"
_QKV_NAMES = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
_MLP_NAMES = {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
_SWIGLU_NAMES = {"mlp.w12": "mlp.weights_in", "mlp.w3": "mlp.weights_out"}


def read_original(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The authors' state dict for `transformers`.

    Returns
    -------
    values
        The configuration, from the sizes of the tensors.
    weights
        Tensors under the names that models on the hub have.

    Raises
    ------
    TeacherError
        If the file holds something else; the message says what is missing.
    """
    weights = _tensors(path)
    for name in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight"):
        if name not in weights:
            raise TeacherError(
                f"{path} has no tensor '{name}'; it must be a file of the authors of DINOv2, "
                "such as dinov2_vits14_pretrain.pth"
            )
    values = _configuration(weights)
    names = _names(values)
    missing = names.keys() - weights.keys()
    if missing:
        raise TeacherError(f"{path} lacks {a_few(missing)} of a DINOv2 model; download it again")
    converted: dict[str, Tensor] = {}
    for name, targets in names.items():
        converted.update(zip(targets, weights[name].chunk(len(targets)), strict=True))
    return values, converted


def _tensors(path: Path) -> Mapping[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, struct.error, pickle.UnpicklingError) as error:
        raise TeacherError(f"{path} is damaged or no PyTorch file of tensors alone; download it again") from error
    if not isinstance(content, Mapping):
        raise TeacherError(f"{path} holds a {type(content).__name__}, not the tensors of a DINOv2 model by name")
    return {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor) and tensor.ndim}


def _configuration(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    width = weights["cls_token"].shape[-1]
    patch = weights["patch_embed.proj.weight"].shape[-1]
    hidden = weights.get("blocks.0.mlp.fc1.weight")
    values = {
        "hidden_size": width,
        "num_hidden_layers": len({name.split(".")[1] for name in weights if name.startswith("blocks.")}),
        "num_attention_heads": width // HEAD_SIZE,
        "mlp_ratio": 4 if hidden is None else hidden.shape[0] // width,
        "use_swiglu_ffn": hidden is None,
        "patch_size": patch,
        "image_size": isqrt(weights["pos_embed"].shape[1] - 1) * patch,
    }
    if "register_tokens" in weights:
        values["num_register_tokens"] = weights["register_tokens"].shape[1]
    return values


def _names(values: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Where each of the authors' tensors goes: to one name, or split evenly among several."""
    names: dict[str, tuple[str, ...]] = {source: (target,) for source, target in _MODEL_NAMES.items()}
    if "num_register_tokens" in values:
        names["register_tokens"] = ("embeddings.register_tokens",)
    mlp = _SWIGLU_NAMES if values["use_swiglu_ffn"] else _MLP_NAMES
    parts = {source: (target,) for source, target in (_LAYER_NAMES | mlp).items()} | {_QKV: _QKV_NAMES}
    for i in range(values["num_hidden_layers"]):
        for source, targets in parts.items():
            for suffix in ("",) if source.endswith(".gamma") else (".weight", ".bias"):
                names[f"blocks.{i}.{source}{suffix}"] = tuple(f"encoder.layer.{i}.{t}{suffix}" for t in targets)
    return names


def a_few(names: Collection[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in sorted(names)[:3]) + more
