"""The model that comes with the package."""

import pytest

from ttt_kd_ros.adaptation.settings import AdaptationSettings
from ttt_kd_ros.classes import load_classes
from ttt_kd_ros.errors import InputError
from ttt_kd_ros.model.checkpoint import load_manifest
from ttt_kd_ros.segmenter import load_segmenter
from ttt_kd_ros.share import embedded_checkpoint


def test_it_is_used_where_no_checkpoint_is_named():
    segmenter = load_segmenter(settings=AdaptationSettings(mode="off"))
    assert segmenter.classes == load_classes("street6")


def test_it_was_trained_on_simulated_drives_of_the_source_domain_alone():
    training = load_manifest(embedded_checkpoint()).training
    assert training["folders"] == [f"source_{seed}" for seed in range(40)]
    assert training["kd_cosine"] > 0.5


def test_it_is_a_few_megabytes():
    assert embedded_checkpoint().stat().st_size < 4 * 2**20


def test_a_package_without_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr("ttt_kd_ros.share.share_directory", lambda: tmp_path)
    with pytest.raises(InputError, match=r"street6\.safetensors is not installed; name a checkpoint"):
        embedded_checkpoint()
