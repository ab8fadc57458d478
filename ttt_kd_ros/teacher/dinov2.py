"""DINOv2 (Oquab et al., 2023), with and without registers (Darcet et al., 2023), run by `transformers`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ttt_kd_ros.errors import TeacherError
from ttt_kd_ros.teacher.dinov2_weights import a_few, read_original
from ttt_kd_ros.teacher.frozen import FrozenTeacher, Level

LONG_SIDE = 896

MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

_SIZES = {(384, 12): "s", (768, 12): "b", (1024, 24): "l", (1536, 40): "g"}
_HUB = {
    f"dinov2-vit{word[0]}14{suffix}": f"facebook/dinov2-{infix}{word}"
    for word in ("small", "base", "large", "giant")
    for suffix, infix in (("", ""), ("-reg4", "with-registers-"))
}


def hub_name(name: str) -> str | None:
    """Hub name of a published model such as ``dinov2-vitb14-reg4``, None if there is no such model."""
    return _HUB.get(name)


def dinov2(source: str, *, long_side: int | None = None) -> FrozenTeacher:
    """DINOv2: the patch tokens after the last norm, without class and register tokens, as one grid.

    The position encoding is interpolated to the picture as in `transformers`. For models without registers the
    authors' own code adds 0.1 to the number of cells before it divides, which shifts theirs by up to ``0.1 * 37 / n``
    cells of the pretraining grid in a picture of n cells.

    Parameters
    ----------
    source
        Directory of a model saved by `transformers`, the authors' ``.pth`` file, or a name on the hub, which is
        downloaded unless it is in the cache.
    long_side
        Long side of the pictures that the network gets [px]; 0 keeps their size, None is 896. Sides become multiples
        of the patch size.

    Raises
    ------
    TeacherError
        If `transformers` is not installed, or the model cannot be found, is damaged or is no DINOv2.
    """
    library = _transformers()
    path = Path(source).expanduser()
    with _quiet(library):
        if path.is_file():
            model = _from_file(library, path)
        elif path.is_dir():
            model = _from_directory(library, path)
        else:
            model = _from_hub(library, source)
    size, patch = model.config.hidden_size, model.config.patch_size
    return FrozenTeacher(
        _name(model.config),
        _PatchTokens(model.float()),
        (Level(size, patch, first=patch / 2),),
        mean=MEAN,
        std=STD,
        long_side=LONG_SIDE if long_side is None else long_side,
        in_bfloat16=True,
    )


class _PatchTokens(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pictures: Tensor) -> tuple[Tensor]:
        config: Any = self.model.config
        others = 1 + _registers(config)
        tokens = self.model(pixel_values=pictures).last_hidden_state[:, others:]
        return (tokens.transpose(1, 2).unflatten(2, (-1, pictures.shape[3] // config.patch_size)),)


def _name(config: Any) -> str:
    shape = (config.hidden_size, config.num_hidden_layers)
    size = _SIZES.get(shape, "-{}x{}-".format(*shape))
    registers = f"-reg{_registers(config)}" if _registers(config) else ""
    return f"dinov2-vit{size}{config.patch_size}{registers}"


def _registers(config: Any) -> int:
    return getattr(config, "num_register_tokens", 0)


def _from_file(library: Any, path: Path) -> Any:
    values, weights = read_original(path)
    kind = "dinov2_with_registers" if "num_register_tokens" in values else "dinov2"
    return _model(library, library.AutoConfig.for_model(kind, **values), path, None, state_dict=weights)


def _from_directory(library: Any, path: Path) -> Any:
    from safetensors import SafetensorError

    try:
        return _open(library, path, local_files_only=True)
    except (OSError, SafetensorError) as error:
        raise TeacherError(f"{path} holds no DINOv2 model saved by transformers: {error}") from error


def _from_hub(library: Any, name: str) -> Any:
    with suppress(OSError):
        return _open(library, name, local_files_only=True)
    try:
        return _open(library, name, local_files_only=False)
    except OSError as error:
        raise TeacherError(
            f"the DINOv2 model '{name}' is neither a directory nor a file and cannot be downloaded under that name; "
            "check name and connection, or download it elsewhere and give its directory"
        ) from error


def _open(library: Any, source: str | Path, *, local_files_only: bool) -> Any:
    try:
        config = library.AutoConfig.from_pretrained(source, local_files_only=local_files_only)
    except ValueError as error:
        raise TeacherError(f"{source} has no config.json of a DINOv2 model") from error
    return _model(library, config, source, source, local_files_only=local_files_only, use_safetensors=True)


def _model(library: Any, config: Any, origin: str | Path, source: str | Path | None, **options: Any) -> Any:
    kinds = {"dinov2": library.Dinov2Model, "dinov2_with_registers": library.Dinov2WithRegistersModel}
    if config.model_type not in kinds:
        raise TeacherError(f"{origin} is a model of type '{config.model_type}', not DINOv2")
    model, report = kinds[config.model_type].from_pretrained(
        source, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    resized = {key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]}
    missing = set(report["missing_keys"]) - {"embeddings.mask_token"}
    if missing | resized:
        raise TeacherError(
            f"{origin} lacks {a_few(missing | resized)} of a DINOv2 model in the right size; download it again"
        )
    return model


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise TeacherError(
            "the DINOv2 teacher needs the package transformers; pip install 'ttt_kd_ros[dinov2]'"
        ) from error
    return transformers


@contextmanager
def _quiet(library: Any) -> Iterator[None]:
    logging = library.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
