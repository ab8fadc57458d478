"""C++ of this package, compiled by the compiler that is there for the processor that is there."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp")
OPENMP = re.compile(r"/lib(gomp|iomp5|omp)[-.\w]*\.so[.\d]*$")


class CompileError(RuntimeError):
    """A library could not be compiled; says why and how to mend it."""


def compiled(source: Path, flags: Sequence[str] = ()) -> ctypes.CDLL:
    """Compile a source file, or load what was compiled of it before.

    Libraries are kept in ``$XDG_CACHE_HOME/ttt_kd_ros`` (``~/.cache/ttt_kd_ros``), under names that tell source,
    compiler and processor apart. They use the threads of PyTorch's OpenMP: a second pool on the same cores would slow
    both down.

    Parameters
    ----------
    source
        C++17 with functions in C's calling convention.
    flags
        Of the compiler, beside `FLAGS`.

    Raises
    ------
    CompileError
        If there is no compiler, or it or the loader fails.
    """
    compiler = _compiler()
    command = [compiler, *FLAGS, *flags]
    target = _run([*command, "-dM", "-E", "-x", "c++", os.devnull])  # what is known of compiler and processor
    openmp = _openmp()
    digest = hashlib.sha256("\0".join([source.read_text(), *command, *openmp, target]).encode()).hexdigest()[:16]
    try:
        library = _cache() / f"{source.stem}-{digest}.so"
        with contextlib.suppress(OSError):  # it is not there, or damaged
            return ctypes.CDLL(str(library))
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            objects, built = Path(folder, "objects.o"), Path(folder, library.name)
            _run([*command, "-c", str(source), "-o", str(objects)])
            _run([compiler, "-shared", str(objects), *openmp, "-o", str(built)])
            built.replace(library)
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise CompileError(
            f"{source.name} cannot be compiled and loaded: {error}; set XDG_CACHE_HOME to a folder for what is compiled"
        ) from None


def _compiler() -> str:
    for name in filter(None, (os.environ.get("CXX"), *COMPILERS)):
        if path := shutil.which(name):
            return path
    raise CompileError("there is no C++ compiler; install one (apt install g++) or set CXX")


def _openmp() -> list[str]:
    """The library of OpenMP that PyTorch has loaded."""
    try:
        loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    except OSError:
        return []
    return sorted(path for path in loaded if OPENMP.search(path))[:1]


def _cache() -> Path:
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ttt_kd_ros"
    except RuntimeError as error:  # nobody's home is known
        raise OSError(str(error)) from None
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except subprocess.CalledProcessError as error:
        raise CompileError(f"{' '.join(command)} fails: {error.stderr.strip()[:1000]}") from None
    except OSError as error:
        raise CompileError(f"{command[0]} cannot be run: {error}") from None
