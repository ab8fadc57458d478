from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ttt_kd_ros.errors import TeacherError
from ttt_kd_ros.teacher import frozen, load_teacher, sample

transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def small_model(*, registers: int = 0, patch_size: int = 14, **values: Any) -> Any:
    torch.manual_seed(0)
    values = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 70} | values
    if registers:
        kind, config = transformers.Dinov2WithRegistersModel, transformers.Dinov2WithRegistersConfig
        values["num_register_tokens"] = registers
    else:
        kind, config = transformers.Dinov2Model, transformers.Dinov2Config
    model = kind(config(patch_size=patch_size, **values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1)
    return model


def saved(model: Any, directory: Path) -> Path:
    model.save_pretrained(directory)
    return directory


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)


def normalised(image: Tensor) -> Tensor:
    return ((image / 255 - MEAN) / STD).permute(2, 0, 1)[None]


def authors_weights(
    width: int = 128, layers: int = 2, grid: int = 5, registers: int = 0, swiglu: bool = False
) -> dict[str, Tensor]:
    """A random state dict as `DinoVisionTransformer` of the authors has it."""
    hidden = (int(4 * width * 2 / 3) + 7) // 8 * 8
    mlp = (
        {"w12": (2 * hidden, width), "w3": (width, hidden)}
        if swiglu
        else {"fc1": (4 * width, width), "fc2": (width, 4 * width)}
    )
    linear = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)} | {f"mlp.{k}": v for k, v in mlp.items()}
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + grid**2, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    if registers:
        shapes["register_tokens"] = (1, registers, width)
    for i in range(layers):
        for name, shape in linear.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            shapes[f"blocks.{i}.{name}"] = (width,)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def authors_patch_tokens(weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """(D, h, w): the authors' `forward_features(...)["x_norm_patchtokens"]`, written out."""
    width, heads = weights["cls_token"].shape[-1], weights["cls_token"].shape[-1] // 64
    x = functional.conv2d(x, weights["patch_embed.proj.weight"], weights["patch_embed.proj.bias"], stride=14)[0]
    rows, columns = x.shape[1:]
    positions = weights["pos_embed"][0, 1:]
    grid = int(len(positions) ** 0.5)
    if (rows, columns) != (grid, grid):
        table = positions.T.reshape(1, width, grid, grid)
        antialias = "register_tokens" in weights
        table = functional.interpolate(table, (rows, columns), mode="bicubic", antialias=antialias)
        positions = table[0].flatten(1).T
    patches = x.flatten(1).T + positions
    others = [weights["cls_token"][0] + weights["pos_embed"][0, :1]]
    if "register_tokens" in weights:
        others.append(weights["register_tokens"][0])
    x = torch.cat([*others, patches])
    for i in range(sum(name.endswith("ls1.gamma") for name in weights)):
        block = {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith(f"blocks.{i}.")}
        x = x + block["ls1.gamma"] * authors_attention(block, layer_norm(x, block, "norm1"), heads)
        x = x + block["ls2.gamma"] * authors_mlp(block, layer_norm(x, block, "norm2"))
    x = layer_norm(x, weights, "norm")[-rows * columns :]
    return x.T.reshape(width, rows, columns)


def layer_norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)


def authors_attention(block: dict[str, Tensor], x: Tensor, heads: int) -> Tensor:
    tokens, width = x.shape
    qkv = (x @ block["attn.qkv.weight"].T + block["attn.qkv.bias"]).reshape(tokens, 3, heads, width // heads)
    out = torch.empty(tokens, heads, width // heads)
    for head in range(heads):
        q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
        out[:, head] = (q @ k.T / (width // heads) ** 0.5).softmax(-1) @ v
    return out.reshape(tokens, width) @ block["attn.proj.weight"].T + block["attn.proj.bias"]


def authors_mlp(block: dict[str, Tensor], x: Tensor) -> Tensor:
    if "mlp.w12.weight" in block:
        gate, value = (x @ block["mlp.w12.weight"].T + block["mlp.w12.bias"]).chunk(2, dim=-1)
        return (functional.silu(gate) * value) @ block["mlp.w3.weight"].T + block["mlp.w3.bias"]
    hidden = functional.gelu(x @ block["mlp.fc1.weight"].T + block["mlp.fc1.bias"])
    return hidden @ block["mlp.fc2.weight"].T + block["mlp.fc2.bias"]


def authors_file(path: Path, **shape: Any) -> tuple[Path, dict[str, Tensor]]:
    weights = authors_weights(**shape)
    torch.save(weights, path)
    return path, weights


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (3, 8), (7, 2)])
def test_each_patch_token_of_transformers_is_the_cell_at_its_place(
    tmp_path: Path, registers: int, rows: int, columns: int
) -> None:
    model = small_model(registers=registers)
    image = picture(14 * rows, 14 * columns)
    with torch.no_grad():
        tokens = model(pixel_values=normalised(image)).last_hidden_state[0]

    teacher = load_teacher(f"dinov2:{saved(model, tmp_path)}", long_side=0)
    (grid,) = teacher.features([image])[0]

    assert grid.values.shape == (128, rows, columns) and teacher.feature_size == 128
    for row in range(rows):
        for column in range(columns):
            expected = tokens[1 + registers + row * columns + column]
            torch.testing.assert_close(grid.values[:, row, column], expected, atol=1e-4, rtol=1e-4)


def test_pictures_in_a_batch_have_the_features_that_each_has_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = load_teacher(f"dinov2:{saved(small_model(registers=4), tmp_path)}", long_side=0)
    images = [picture(42, 70, seed) for seed in range(3)]
    alone = teacher.features(images)
    monkeypatch.setattr(frozen, "BATCHED", ("cpu",))
    for (found,), (expected,) in zip(teacher.features(images), alone, strict=True):
        torch.testing.assert_close(found.values, expected.values, atol=1e-4, rtol=1e-4)


def test_a_changed_patch_of_the_picture_changes_its_own_cell_most(tmp_path: Path) -> None:
    teacher = load_teacher(f"dinov2:{saved(small_model(), tmp_path)}", long_side=0)
    image = picture(42, 112)
    (before,) = teacher.features([image])[0]
    for row, column in ((0, 7), (2, 1), (1, 4)):
        changed = image.clone()
        changed[14 * row : 14 * (row + 1), 14 * column : 14 * (column + 1)] = picture(14, 14, seed=1)
        (after,) = teacher.features([changed])[0]
        difference = (after.values - before.values).norm(dim=0)
        assert divmod(int(difference.argmax()), 8) == (row, column)

        u, v = 14 * column + 6.5, 14 * row + 6.5
        moved = sample([after], torch.tensor([[u, v]])) - sample([before], torch.tensor([[u, v]]))
        assert moved.norm() == pytest.approx(float(difference.max()), rel=1e-4)


def test_cells_tile_a_picture_that_had_to_be_resized(tmp_path: Path) -> None:
    teacher = load_teacher(f"dinov2:{saved(small_model(), tmp_path)}", long_side=140)
    (grid,) = teacher.features([picture(90, 301)])[0]
    assert grid.values.shape == (128, 3, 10)
    assert grid.scale == pytest.approx((10 / 301, 3 / 90)) and grid.offset == (-0.5, -0.5)


@pytest.mark.parametrize(
    "shape",
    [{}, {"registers": 4}, {"swiglu": True}, {"registers": 2, "swiglu": True, "width": 192, "layers": 3, "grid": 4}],
    ids=str,
)
@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (3, 8)])
def test_an_authors_file_gives_the_authors_patch_tokens(
    tmp_path: Path, shape: dict[str, Any], rows: int, columns: int
) -> None:
    path, weights = authors_file(tmp_path / "weights.pth", **shape)
    image = picture(14 * rows, 14 * columns)
    (grid,) = load_teacher(f"dinov2:{path}", long_side=0).features([image])[0]
    torch.testing.assert_close(grid.values, authors_patch_tokens(weights, normalised(image)), atol=1e-4, rtol=1e-4)


def back_to_authors(hub: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' names and fused tensors from the tensors of a saved model."""
    simple = {
        "embeddings.position_embeddings": "pos_embed",
        "embeddings.patch_embeddings.projection": "patch_embed.proj",
        "embeddings.": "",
        "encoder.layer": "blocks",
        "attention.output.dense": "attn.proj",
        "layer_scale": "ls",
        "lambda1": "gamma",
        "layernorm": "norm",
    }
    weights = {}
    for name, value in hub.items():
        if ".attention.attention." in name:
            continue
        new = name
        for old, replacement in simple.items():
            new = new.replace(old, replacement)
        weights[new] = value
    for i in range(12):
        for suffix in ("weight", "bias"):
            parts = [
                hub[f"encoder.layer.{i}.attention.attention.{part}.{suffix}"] for part in ("query", "key", "value")
            ]
            weights[f"blocks.{i}.attn.qkv.{suffix}"] = torch.cat(parts)
    return weights


def test_vit_s_14_is_the_same_from_a_directory_and_from_an_authors_file(tmp_path: Path) -> None:
    model = small_model(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518)
    directory = saved(model, tmp_path / "model")
    hub = safetensors.load_file(directory / "model.safetensors")
    torch.save(back_to_authors(hub), tmp_path / "dinov2_vits14_pretrain.pth")
    image = picture(75, 248)

    teachers = [load_teacher(f"dinov2:{source}") for source in (directory, tmp_path / "dinov2_vits14_pretrain.pth")]

    assert [(teacher.name, teacher.feature_size) for teacher in teachers] == [("dinov2-vits14", 384)] * 2
    (one,), (other,) = (teacher.features([image])[0] for teacher in teachers)
    assert torch.equal(one.values, other.values) and one.values.shape == (384, 19, 64)


def test_the_name_tells_size_patch_and_registers(tmp_path: Path) -> None:
    path, _ = authors_file(tmp_path / "a.pth", width=384, layers=12, registers=4)
    assert load_teacher(f"dinov2:{path}").name == "dinov2-vits14-reg4"
    small = saved(small_model(patch_size=7), tmp_path / "small")
    assert load_teacher(f"dinov2:{small}").name == "dinov2-vit-128x2-7"


def test_weights_in_half_precision_give_float32_features(tmp_path: Path) -> None:
    directory = saved(small_model().half(), tmp_path)
    (grid,) = load_teacher(f"dinov2:{directory}", long_side=0).features([picture(28, 28)])[0]
    assert grid.values.dtype == torch.float32


def test_nothing_of_it_can_be_trained(tmp_path: Path) -> None:
    teacher: Any = load_teacher(f"dinov2:{saved(small_model(), tmp_path)}", long_side=0)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())
    assert not teacher.features([picture(28, 28)])[0][0].values.requires_grad


@pytest.mark.parametrize(
    ("removed", "named"),
    [
        ("pos_embed", "'pos_embed'"),
        ("blocks.1.attn.qkv.bias", "'blocks.1.attn.qkv.bias'"),
        ("norm.weight", "'norm.weight'"),
        ("blocks.0.mlp.fc2.weight", "'blocks.0.mlp.fc2.weight'"),
    ],
)
def test_an_authors_file_without_a_tensor_is_refused_by_the_tensor_s_name(
    tmp_path: Path, removed: str, named: str
) -> None:
    weights = authors_weights()
    del weights[removed]
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(TeacherError, match=named):
        load_teacher(f"dinov2:{tmp_path / 'weights.pth'}")


def test_an_authors_file_with_a_tensor_of_another_size_is_refused(tmp_path: Path) -> None:
    torch.save(authors_weights() | {"norm.weight": torch.zeros(64)}, tmp_path / "weights.pth")
    with pytest.raises(TeacherError, match=r"'layernorm\.weight' of a DINOv2 model"):
        load_teacher(f"dinov2:{tmp_path / 'weights.pth'}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"teacher": {"cls_token": torch.zeros(1)}}, "no tensor 'cls_token'"),
        ({"fc.weight": torch.zeros(3, 3)}, "no tensor 'cls_token'"),
        ([torch.zeros(3)], "holds a list"),
    ],
)
def test_a_pytorch_file_of_something_else_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(TeacherError, match=message):
        load_teacher(f"dinov2:{tmp_path / 'other.pth'}")


@pytest.mark.parametrize("content", [b"", b"junk", b"longer junk than a few bytes" * 9, "half"], ids=repr)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes | str) -> None:
    path, _ = authors_file(tmp_path / "weights.pth")
    whole = path.read_bytes()
    path.write_bytes(content if isinstance(content, bytes) else whole[: len(whole) // 2])
    with pytest.raises(TeacherError, match="damaged"):
        load_teacher(f"dinov2:{path}")


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(small_model(), tmp_path / "pickled.pth")
    with pytest.raises(TeacherError, match="tensors alone"):
        load_teacher(f"dinov2:{tmp_path / 'pickled.pth'}")


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="DINOv2"):
        load_teacher(f"dinov2:{tmp_path}")


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    transformers.ViTConfig().save_pretrained(tmp_path)
    with pytest.raises(TeacherError, match="type 'vit'"):
        load_teacher(f"dinov2:{tmp_path}")


def test_a_directory_with_part_of_the_weights_is_refused(tmp_path: Path) -> None:
    path = saved(small_model(), tmp_path) / "model.safetensors"
    tensors = safetensors.load_file(path)
    del tensors["layernorm.weight"]
    safetensors.save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(TeacherError, match=r"lacks 'layernorm\.weight'"):
        load_teacher(f"dinov2:{tmp_path}")


def test_a_directory_whose_weights_have_another_size_is_refused(tmp_path: Path) -> None:
    config = saved(small_model(), tmp_path) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"image_size": 84}))
    with pytest.raises(TeacherError, match=r"lacks 'embeddings\.position_embeddings'"):
        load_teacher(f"dinov2:{tmp_path}")


def test_a_directory_with_truncated_weights_is_refused(tmp_path: Path) -> None:
    path = saved(small_model(), tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(TeacherError, match="no DINOv2 model saved by transformers"):
        load_teacher(f"dinov2:{tmp_path}")


@pytest.mark.parametrize("spec", ["dinov2:facebook/no-such-model", "dinov2:/no/such/directory", "dinov2-vits14"])
def test_a_name_that_cannot_be_downloaded_is_refused_with_advice(
    spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(TeacherError, match="download it elsewhere"):
        load_teacher(spec)


def test_missing_transformers_are_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TeacherError, match=r"ttt_kd_ros\[dinov2\]"):
        load_teacher(f"dinov2:{tmp_path}")


def test_loading_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    saved(small_model(), tmp_path)
    capfd.readouterr()
    load_teacher(f"dinov2:{tmp_path}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.gpu
def test_on_a_gpu_it_computes_in_bfloat16_with_nearly_the_same_features(tmp_path):
    directory = saved(small_model(), tmp_path)
    image = picture(140, 210)
    (exact,) = load_teacher(f"dinov2:{directory}").features([image])[0]
    (found,) = load_teacher(f"dinov2:{directory}", device="cuda").features([image.cuda()])[0]
    assert found.values.dtype == torch.float32
    cosine = functional.cosine_similarity(found.values.cpu().flatten(1), exact.values.flatten(1), dim=0)
    assert cosine.min() > 0.999
