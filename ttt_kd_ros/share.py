"""Files that are installed beside the code: configurations, class lists, launch files, the model."""

from pathlib import Path

from ttt_kd_ros.errors import InputError


def share_directory() -> Path:
    """Directory that holds ``config/`` and ``launch/``: the source tree or ``<prefix>/share/ttt_kd_ros``.

    Raises
    ------
    InputError
        If the package was installed without its data files.
    """
    for parent in Path(__file__).resolve().parents[1:]:
        for candidate in (parent, parent / "share" / "ttt_kd_ros"):
            if (candidate / "config" / "classes").is_dir():
                return candidate
    raise InputError("the package's config directory is not installed; install ttt_kd_ros with pip or colcon")


def embedded_checkpoint() -> Path:
    """The checkpoint that comes with the package, trained on simulated drives alone.

    Raises
    ------
    InputError
        If the package was installed without it.
    """
    path = share_directory() / "models" / "street6.safetensors"
    if not path.is_file():
        raise InputError(f"the package's own model {path} is not installed; name a checkpoint")
    return path


def config_file(kind: str, name: str | Path) -> Path:
    """Path of a configuration: `name` itself if it is a file, else ``config/<kind>/<name>.yaml``.

    Raises
    ------
    InputError
        If there is neither.
    """
    if Path(name).is_file():
        return Path(name)
    directory = share_directory() / "config" / kind
    path = directory / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in directory.glob("*.yaml")))
        raise InputError(f"'{name}' is neither a file nor in config/{kind}, which has {known}")
    return path
