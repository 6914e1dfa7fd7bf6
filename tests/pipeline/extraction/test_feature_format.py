"""The documentation of the feature file names everything that is in one."""

import re
from dataclasses import fields

import h5py
import pytest
import torch

from extractors.build import ExtractorChoice
from extractors.flow.tvl1 import TVL1Config
from pipeline.datasets.catalog import VideoEntry
from pipeline.extraction import feature_format
from pipeline.extraction.extract_entries import extract_entries
from pipeline.extraction.feature_file import read_header
from pipeline.extraction.feature_format import ATTRIBUTES, FORMAT, FORMAT_VERSION

DOCUMENTATION = feature_format.__doc__ or ""
CPU = torch.device("cpu")


def is_documented(name: str) -> bool:
    """Whether a line, or a list of flow parameters, has the name as a word of its own."""
    if re.search(rf"(?<![\w-]){name}(?![\w-])", DOCUMENTATION):
        return True
    of_stream = re.fullmatch(r"(weights_sha256_)(rgb|flow)", name)
    return of_stream is not None and f"{of_stream[1]}<stream>" in DOCUMENTATION


@pytest.mark.parametrize("name", ["no_such_key", "flow_no", "weights_sha256_audio", "rgb_rang"])
def test_a_name_that_is_not_in_the_documentation_is_found_out(name):
    assert not is_documented(name)


def test_every_array_attribute_and_key_of_an_extracted_file_is_documented(write_clip, tmp_path):
    clip = write_clip(tmp_path / "a.mp4", n_frames=16)
    entry = VideoEntry("a", clip, "train", 0)
    extractor = ExtractorChoice("i3d", "dis", 1, "random:0").build(CPU)
    list(extract_entries([entry], tmp_path, extractor))
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file) == {"rgb", "flow", "timestamps"}
        assert set(file.attrs) == set(ATTRIBUTES)
    for name in ["rgb", "flow", "timestamps", *ATTRIBUTES]:
        assert is_documented(name), name
    for key in read_header(tmp_path / "a.h5").provenance:
        assert is_documented(key), key


def test_the_format_and_its_version_are_documented():
    assert re.search(rf'^    format +"{FORMAT}"$', DOCUMENTATION, re.MULTILINE)
    assert re.search(rf"^    format_version +{FORMAT_VERSION}$", DOCUMENTATION, re.MULTILINE)


def test_the_parameters_of_tvl1_are_documented_at_its_config():
    assert "the fields of `TVL1Config`" in DOCUMENTATION
    for field in fields(TVL1Config):
        assert f"{field.name}: " in (TVL1Config.__doc__ or "")
