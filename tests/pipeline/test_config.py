"""Where settings come from, which wins, and how each wrong one is refused."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest

from models import MODELS
from pipeline import config as config_module
from pipeline.config import (
    FEW_VIDEOS,
    RECIPES,
    ConfigError,
    config_from_json,
    config_to_json,
    model_config_from_json,
    resolve_config,
    with_seed,
    with_streams,
)
from pipeline.datasets import DATASETS


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """An empty folder that stands for the recipes of the package."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    monkeypatch.setattr(config_module, "RECIPES", folder)
    return folder


def test_without_any_setting_the_defaults_stand():
    config = resolve_config("clav-como", "no such dataset")
    assert (config.sampler, config.bag_len, config.bags_per_class) == ("bins", 32, 32)
    assert (config.steps, config.learning_rate, config.weight_decay) == (5000, 5e-4, 5e-4)
    assert (config.ema_decay, config.max_grad_norm, config.seed) == (0.999, 1.0, 0)
    assert config.model.embedding_dim == 512


def test_recipe_then_recipe_file_then_single_settings_win(recipes, tmp_path):
    (recipes / "clav-como-demo.toml").write_text(
        "steps = 11\nbag_len = 12\nseed = 13\n[model]\nembedding_dim = 14\nmargin = 0.15\n"
    )
    (tmp_path / "mine.toml").write_text("bag_len = 22\nseed = 23\n[model]\nmargin = 0.25\n")
    settings = ["seed=33", "model.scorer_dropout=0.35"]
    config = resolve_config("clav-como", "demo", recipe=tmp_path / "mine.toml", settings=settings)
    assert (config.steps, config.bag_len, config.seed) == (11, 22, 33)
    assert (config.model.embedding_dim, config.model.margin) == (14, 0.25)
    assert config.model.scorer_dropout == 0.35
    assert resolve_config("clav-como", "other").steps == 5000


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("sampler=sequence", "sequence"),
        ('sampler="sequence"', "sequence"),
        ("sampler = sequence", "sequence"),
        ("learning_rate=1e-3", 1e-3),
        ("max_grad_norm=2", 2.0),
        ("steps=1_000", 1000),
    ],
)
def test_a_setting_is_toml_or_a_bare_word(setting, expected):
    config = resolve_config("clav-como", "none", settings=[setting])
    assert getattr(config, setting.partition("=")[0].strip()) == expected


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("lerning_rate=1", "--set lerning_rate=1: unknown key lerning_rate; did you mean learning"),
        ("model.margn=1", "unknown key model.margn; did you mean model.margin?"),
        ("zzz=1", "unknown key zzz; known are sampler, bag_len"),
        ("margin=1", "unknown key margin; did you mean model.margin?"),
        ("model=1", "unknown key model;"),
        ("model_name=la-net", "unknown key model_name;"),
        ("model.stream_dims=1", "unknown key model.stream_dims;"),
        ("model.margin.a=1", "model.margin must be a valid number, instead got {'a': 1}"),
        ("steps=5o0", "--set steps=5o0: steps must be a valid integer, instead got '5o0'"),
        ("steps=0", "steps must be greater than or equal to 1, instead got 0"),
        ("steps=1.5", "steps must be a valid integer, instead got 1.5"),
        ("steps=true", "steps must be a valid integer, instead got True"),
        ("steps=", "steps must be a valid integer, instead got ''"),
        ("learning_rate=nan", "learning_rate must be a finite number"),
        ("learning_rate=0", "learning_rate must be greater than 0"),
        ("ema_decay=1", "ema_decay must be less than 1"),
        ("weight_decay=-1", "weight_decay must be greater than or equal to 0"),
        ("seed=-1", "seed must be greater than or equal to 0"),
        ("sampler=bin", "sampler must be 'bins' or 'sequence', instead got 'bin'"),
        ("model.embedding_dim=big", "model.embedding_dim must be a valid integer"),
        ("steps", "--set must be key=value, instead got 'steps'"),
        ("=3", "--set must be key=value, instead got '=3'"),
        ("steps=1979-05-27", "steps must be a valid integer"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_by_name(setting, text):
    with pytest.raises(ConfigError) as caught:
        resolve_config("clav-como", "none", settings=[setting])
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"stepps = 3", "mine.toml: unknown key stepps; did you mean steps?"),
        (b"[model]\nwidth = 3", "mine.toml: unknown key model.width;"),
        (b"[training]\nsteps = 3", "mine.toml: unknown key training;"),
        (b"steps = -3", "mine.toml: steps must be greater than or equal to 1, instead got -3"),
        (b"steps = ", "mine.toml: the recipe must be TOML (Invalid value"),
        (b"steps = '\xff'", "mine.toml: is not UTF-8 text, expected a recipe in TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line_by_name(tmp_path, content, text):
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        resolve_config("clav-como", "none", recipe=tmp_path / "mine.toml")
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(
        ConfigError,
        match=r"absent\.toml: cannot be read \(No such file or directory\), expected a recipe",
    ):
        resolve_config("clav-como", "none", recipe=tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="is a folder, expected a recipe in TOML"):
        resolve_config("clav-como", "none", recipe=tmp_path)


def test_an_unknown_model_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"--model must be one of clav-como.*instead got 'comoo'"):
        resolve_config("comoo", "none")


def test_settings_survive_json():
    config = resolve_config("clav-como", "none", settings=["steps=7", "model.margin=0.25"])
    assert config_from_json(json.loads(json.dumps(config_to_json(config)))) == config


def test_the_streams_come_from_the_features_and_are_not_kept_as_a_setting():
    config = resolve_config("clav-como", "none")
    streamed = with_streams(config, (("rgb", 24), ("flow", 8)))
    assert streamed.model.feature_dim == 32
    assert config_from_json(json.loads(json.dumps(config_to_json(streamed)))) == config


def test_another_seed_changes_nothing_else():
    config = resolve_config("clav-como", "none", settings=["steps=7"])
    assert with_seed(config, 3) == resolve_config(
        "clav-como", "none", settings=["steps=7", "seed=3"]
    )
    with pytest.raises(ConfigError, match=r"--seed: seed must be less than .*, instead got 10"):
        with_seed(config, 10**19)


@pytest.mark.parametrize(
    "change",
    [
        {"model_name": "other"},
        {"model": None},
        {"model": {"margn": 1}},
        {"model": {"stream_dims": [["rgb"]]}},
        {"model": {"stream_dims": []}},
        {"stepps": 3},
        {"steps": "3"},
    ],
)
def test_kept_settings_that_were_tampered_with_are_refused(change):
    kept = config_to_json(resolve_config("clav-como", "none"))
    with pytest.raises(ConfigError, match=r"must|required|Unexpected"):
        config_from_json({**kept, **change})


def test_a_config_cannot_be_changed_only_replaced():
    config = resolve_config("clav-como", "none")
    with pytest.raises((FrozenInstanceError, AttributeError)):
        config.steps = 3
    assert replace(config, seed=5).seed == 5
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        replace(config, steps=0)


def test_the_number_of_epochs_counts_the_last_short_one():
    config = resolve_config("clav-como", "none", settings=["steps=250", "steps_per_epoch=100"])
    assert config.n_epochs == 3
    assert replace(config, steps=200).n_epochs == 2


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_package_is_valid_and_only_registered_datasets_have_one_by_name(path):
    (model_name,) = [name for name in MODELS if path.stem.startswith(name)]
    config = resolve_config(model_name, "none", recipe=path)
    if path.parent == RECIPES:
        dataset_name = path.stem.removeprefix(f"{model_name}-")
        assert dataset_name in DATASETS
        assert resolve_config(model_name, dataset_name) == config


def test_a_manifest_selects_no_recipe_by_its_name():
    names = ["few-videos", "few_videos", "exclusive-or", "bursts", "synthetic"]
    names += [path.stem for path in RECIPES.glob("*/*.toml")]
    for model_name in MODELS:
        for n_videos in (10, 5000):
            expected = resolve_config(model_name, "mine", n_videos=n_videos)
            for name in names:
                assert resolve_config(model_name, name, n_videos=n_videos) == expected, name


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("model.embedding_dim=10000000", "embedding_dim must be at most 65536, instead got 100000"),
        ("model.scorer_dim=60000", ""),
        ("bag_len=1000000000", "bag_len must be less than or equal to 65536"),
        (
            "steps=3\nlearning_rate=1",
            r"--set must be one line, instead got 'steps=3\nlearning_rate",
        ),
        ("steps=3\rlearning_rate=1", "--set must be one line"),
        ("steps=" + "[" * 5000, "is nested too deep"),
        ("model.margin=" + "{a=" * 5000, "is nested too deep"),
        (".".join("a" * 5000) + "=1", "a key has at most one dot"),
    ],
)
def test_a_setting_that_would_exhaust_or_deceive_is_one_short_line(setting, text):
    if not text:
        resolve_config("clav-como", "none", settings=[setting])  # wide, but it fits
        return
    with pytest.raises(ConfigError) as caught:
        resolve_config("clav-como", "none", settings=[setting])
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_widths_that_are_allowed_each_but_too_large_together_are_refused():
    with pytest.raises(ConfigError, match="at most 250000000 parameters, instead these settings"):
        resolve_config("clav-como", "none", settings=["model.embedding_dim=60000"])


def test_a_recipe_that_is_nested_too_deep_is_one_line(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text("steps = " + "[" * 5000)
    with pytest.raises(ConfigError, match=r"deep\.toml: the recipe must be TOML"):
        resolve_config("clav-como", "none", recipe=path)


@pytest.mark.parametrize("n_streams", [0, 17, 200_000])
def test_a_config_of_too_many_streams_is_refused_at_once_and_in_one_short_line(n_streams):
    streams = [[f"s{index}", 1] for index in range(n_streams)]
    with pytest.raises(ConfigError, match="stream_dims must name") as caught:
        model_config_from_json("clav-como", {"stream_dims": streams})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("model_name", list(MODELS))
def test_few_training_videos_have_a_small_network_few_steps_and_noise(model_name):
    few = resolve_config(model_name, "mine", n_videos=FEW_VIDEOS - 1)
    many = resolve_config(model_name, "mine", n_videos=FEW_VIDEOS)
    assert many == resolve_config(model_name, "mine")
    of_few = RECIPES / "few_videos" / f"{model_name}.toml"
    assert few == resolve_config(model_name, "mine", recipe=of_few)
    assert few.steps < many.steps
    assert few.model.input_noise > many.model.input_noise == 0
    assert few.model.embedding_dim < many.model.embedding_dim


def test_a_recipe_of_the_dataset_and_settings_win_over_that_for_few_videos():
    config = resolve_config("clav-como", "shanghaitech", n_videos=50, settings=["steps=7"])
    assert (config.steps, config.sampler, config.model.input_noise) == (7, "bins", 0)
    config = resolve_config("clav-como", "mine", n_videos=50, settings=["steps=7"])
    assert (config.steps, config.sampler, config.model.input_noise) == (7, "sequence", 2)


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "mine.toml").write_text("\ufeffsteps = 7\n", encoding="utf-8")
    assert resolve_config("clav-como", "none", recipe=tmp_path / "mine.toml").steps == 7


def test_a_recipe_that_is_no_regular_file_is_not_read():
    with pytest.raises(ConfigError, match="/dev/zero: is not a regular file"):
        resolve_config("clav-como", "none", recipe=Path("/dev/zero"))
