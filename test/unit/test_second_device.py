"""Tests that need a GPU on a device that stands for one, so that what mixes devices is seen without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

TESTS = Path(__file__).parents[1]
OF_GRAPHS = "test_replayed.py"


@pytest.fixture
def second_device(tmp_path):
    if torch.version.cuda or torch.version.hip:
        pytest.skip("this build of PyTorch knows devices of its own")
    pytorch, library = Path(torch.__file__).parent, tmp_path / "second_device.so"
    command = ["c++", "-shared", "-fPIC", "-std=c++20", str(TESTS / "second_device.cpp"), "-o", str(library)]
    command += [f"-I{pytorch}/include", f"-L{pytorch}/lib", "-lc10", "-ltorch_cpu"]
    command += [f"-Wl,-rpath,{pytorch}/lib,--no-undefined"]  # older versions are of another C++ ABI
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs a C++ compiler")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"it does not compile for this version of PyTorch: {error.stderr}")
    return library


def test_what_needs_a_gpu_passes_on_a_second_device(second_device):
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"SECOND_DEVICE": str(second_device), "PYTHONPATH": path}
    files = [file for file in (TESTS / "unit").glob("test_*.py") if "mark.gpu" in file.read_text()]
    command = [sys.executable, "-m", "pytest", "-p", "second_device", "-q", "-m", "gpu"]
    command += [str(file) for file in files if file.name not in (OF_GRAPHS, Path(__file__).name)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=TESTS.parent)
    assert run.returncode == 0, run.stdout + run.stderr
