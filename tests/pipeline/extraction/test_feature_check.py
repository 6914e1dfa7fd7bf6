"""The check of feature files, on files as other programs write them with h5py."""

import inspect
import textwrap
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.extraction import feature_check
from pipeline.extraction.feature_check import check_feature_file
from pipeline.extraction.feature_file import read_features
from pipeline.extraction.feature_folder import write_index

ATTRIBUTES: dict[str, Any] = {
    "format": "lookaround features",
    "format_version": 3,
    "video_id": "garage",
    "streams": '["rgb"]',
    "provenance": '{"extractor": "mine"}',
    "snippet_len": 16,
    "n_frames": 100,
    "fps": 25.0,
}


def example() -> str:
    """The program in the module's docstring."""
    doc = inspect.getdoc(feature_check)
    assert doc is not None
    return textwrap.dedent("\n".join(line for line in doc.splitlines() if line.startswith("    ")))


def write(path: Path, attributes: dict[str, Any], rgb: Any = None) -> Path:
    with h5py.File(path, "w") as file:
        file["rgb"] = np.ones((7, 1, 8), "float16") if rgb is None else rgb
        file["timestamps"] = np.arange(100) / 25
        file.attrs.update(attributes)
    return path


def test_the_example_in_the_docstring_writes_a_valid_file_in_ten_lines(tmp_path, monkeypatch):
    program = example()
    assert len(program.strip().splitlines()) == 10
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    assert check_feature_file(Path("garage.h5")) == []
    stored = read_features(Path("garage.h5"), video_id="garage")
    assert stored.features.streams["rgb"].shape == (7, 1, 1024)
    assert stored.provenance == {"extractor": "mine", "is_pretrained": True}


@pytest.mark.parametrize("missing", ATTRIBUTES)
def test_a_missing_attribute_is_one_line_that_names_it(tmp_path, missing):
    rest = {name: value for name, value in ATTRIBUTES.items() if name != missing}
    path = write(tmp_path / "v.h5", rest)
    assert check_feature_file(path) == [f"{path}: attribute {missing} is missing"]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("format", "features", "format must be 'lookaround features', instead got 'features'"),
        ("format_version", 2, "format_version must be 3, instead got 2"),
        ("streams", "rgb", ""),
        ("streams", '["rgb", "rgb"]', "its streams must be a list of different names"),
        ("streams", "[]", "its streams must be a list of at least one name"),
        ("streams", '["rgb", "flow"]', "array flow is missing or lies elsewhere"),
        ("provenance", "{}", "its provenance must say how the features were made"),
        ("provenance", '{"a": {}}', "its provenance must be a flat JSON object"),
        ("provenance", '{"crops": Infinity}', "must be a flat JSON object of text and finite"),
        ("provenance", '{"tail_policy": "none"}', "tail_policy must be one of"),
        ("snippet_len", 32, "rgb must have 3 axes and 4 rows, got (7, 1, 8)"),
        ("snippet_len", "16", "attribute snippet_len must be one int"),
        ("n_frames", 101, "timestamps must have 1 axes and 101 rows, got (100,)"),
        ("fps", -1.0, "fps must be finite and above 0, instead got -1.0"),
    ],
)
def test_a_wrong_attribute_is_one_line_that_says_what_is_wrong(tmp_path, name, value, reason):
    path = write(tmp_path / "v.h5", {**ATTRIBUTES, name: value})
    problems = check_feature_file(path)
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}: ")
    assert reason in problems[0]


def test_an_array_of_another_type_or_with_nan_is_one_line(tmp_path):
    path = write(tmp_path / "v.h5", ATTRIBUTES, np.ones((7, 1, 8)))
    assert check_feature_file(path) == [f"{path}: rgb must be an array of float16"]
    values = np.ones((7, 1, 8), "float16")
    values[3, 0, :2] = np.nan
    path = write(tmp_path / "v.h5", ATTRIBUTES, values)
    assert check_feature_file(path) == [f"{path}: rgb must be finite, instead 2 values are not"]


def test_every_problem_of_a_file_is_listed_not_only_the_first(tmp_path):
    path = write(tmp_path / "v.h5", {**ATTRIBUTES, "fps": "25", "streams": '["flow"]'})
    assert check_feature_file(path) == [
        f"{path}: attribute fps must be one float",
        f"{path}: array flow is missing or lies elsewhere",
    ]


def test_what_is_no_hdf5_file_is_one_line(tmp_path):
    (tmp_path / "text.h5").write_text("not HDF5")
    for path in (tmp_path / "text.h5", tmp_path / "absent.h5", tmp_path):
        (problem,) = check_feature_file(path)
        assert problem.startswith(f"{path}: ")


def test_the_command_lists_the_problems_and_exits_with_3(tmp_path):
    good = write(tmp_path / "good.h5", ATTRIBUTES)
    bad = write(tmp_path / "bad.h5", {**ATTRIBUTES, "fps": 0})
    result = CliRunner().invoke(main, ["features", "check", str(good)])
    assert (result.exit_code, result.stdout) == (0, "1 valid, 0 not\n")
    result = CliRunner().invoke(main, ["features", "check", str(good), str(bad)])
    assert result.exit_code == 3
    assert "fps must be finite and above 0" in result.stdout
    assert result.stdout.endswith("1 valid, 1 not\n")


def test_a_file_of_another_kind_is_not_to_be_removed(tmp_path):
    (tmp_path / "my.csv").write_text("path,split,label,anomalies\n")
    assert check_feature_file(tmp_path / "my.csv") == [
        f"{tmp_path / 'my.csv'}: is no HDF5 file, expected a feature file"
    ]


def test_the_index_of_a_folder_is_no_feature_file_and_left_out(tmp_path):
    write(tmp_path / "garage.h5", ATTRIBUTES)
    write_index(tmp_path)
    command = ["features", "check", *map(str, sorted(tmp_path.glob("*.h5")))]
    assert len(command) == 4
    (tmp_path / "status.csv").touch()
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, result.stdout) == (0, "1 valid, 0 not\n")


def test_a_file_that_is_named_as_an_index_elsewhere_is_checked(tmp_path):
    write(tmp_path / "index.h5", {**ATTRIBUTES, "fps": 0})
    result = CliRunner().invoke(main, ["features", "check", str(tmp_path / "index.h5")])
    assert result.exit_code == 3
