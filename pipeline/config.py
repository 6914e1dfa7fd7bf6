"""The configuration of a training run: typed, checked, unknown keys are refused by name.

A setting is looked up in this order, the later wins: the defaults below and those of the model's
own config, a recipe in `pipeline/recipes` (of the model for a registered dataset or, for a dataset
without one that has few training videos, in `few_videos`), a recipe file that the user names, and
single settings `key=value`. The model's settings are in the table `model`.
"""

import dataclasses
import difflib
import json
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from extractors.errors import LookaroundError
from models import MODELS, model_class
from models.interface import MAX_SIZE, ModelConfig
from pipeline.text_file import read_text

# How a bag is brought to its length: means over bins (RTFM), or sampled snippets (XDVioDet).
Sampler = Literal["bins", "sequence"]

# Only registered datasets have one here, so that no manifest selects it by its name.
RECIPES = Path(__file__).with_name("recipes")
# Fewer training videos than this are trained on with `few_videos/<model>.toml`. On 200 real clips
# the smaller network is as good as any simple scorer, and takes two CPU cores a minute where the
# larger one takes an hour and a half. Not measured: from where on the larger one pays.
FEW_VIDEOS = 1000

MAX_RECIPE_BYTES = 1_000_000

# 1 GB as float32; training holds five times as much.
MAX_PARAMETERS = 250_000_000

# None is a setting: the model is chosen by name, the others follow from the training videos.
_FROM_VIDEOS = ("stream_dims", "window_len")
_NOT_SETTINGS = ("model_name", *(f"model.{name}" for name in _FROM_VIDEOS))


class ConfigError(LookaroundError, ValueError):
    """A setting is not known, is out of its range, or cannot be read."""


@dataclass(frozen=True, slots=True, config=ConfigDict(strict=True, extra="forbid"))
class TrainConfig:
    """The settings of one training run.

    The defaults are those of the reconstruction of CLAV-CoMo: 5,000 steps of 32 + 32 bags of 32
    bins.

    Attributes:
        model_name: Key of `MODELS`.
        model: The model's own settings.
        sampler: `bins` (T means over equal bins) or `sequence` (up to T snippets, padded).
        bag_len: T.
        bags_per_class: Bags of either class in a batch.
        learning_rate: At the first step; falls to 0 along a cosine.
        weight_decay: L2 penalty, inside Adam.
        steps: Length of the training run.
        steps_per_epoch: After so many steps a line is logged and the state is saved.
        selection: `budget` keeps the weights after the last step; `held_out` keeps those of the
            epoch that ranks held-out videos best by their labels: the `val` split where the dataset
            has one, else a fraction of the training videos.
        held_out_fraction: That fraction, of normal and of anomalous videos alike.
        keep_epochs: Keep the weights of every epoch, for `pipeline evaluate --best-on-test`.
        ema_decay: Of the moving average of the weights, which is what is kept.
        max_grad_norm: The gradient is scaled down to this norm.
        mixed_precision: On a GPU the forward pass computes in bfloat16; losses, weights and the
            optimizer stay in float32. A CPU always computes in float32.
        ensemble: Put simple scorers beside the trained model, weighted by cross-validation over the
            training videos (`models.ensemble`); takes six times as long.
        seed: Of the initial weights, the draws and the dropout.

    Raises:
        ValidationError: If a value has the wrong type or is out of its range; a `ValueError`.
    """

    model_name: str
    model: ModelConfig
    sampler: Sampler = "bins"
    bag_len: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 32
    bags_per_class: Annotated[int, Field(ge=1, le=MAX_SIZE)] = 32
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5e-4
    steps: Annotated[int, Field(ge=1)] = 5000
    # Paper is silent: an epoch is a number of steps here, not a pass over the videos. Small
    # datasets would else log and save after every second step.
    steps_per_epoch: Annotated[int, Field(ge=1)] = 100
    # A video's label is learned long before the place of its anomaly, so the label ranks epochs
    # poorly: hence a fixed budget is the default.
    selection: Literal["budget", "held_out"] = "budget"
    held_out_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    keep_epochs: bool = False
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    mixed_precision: bool = True
    ensemble: bool = False
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def n_epochs(self) -> int:
        """How many epochs the steps make; the last may be shorter."""
        return -(-self.steps // self.steps_per_epoch)

    @property
    def selection_description(self) -> str:
        """Which weights are kept, for people; no test video selects them."""
        if self.selection == "held_out":
            return f"the epoch of {self.n_epochs} that ranks held-out training videos best"
        return f"after a fixed budget of {self.steps} steps"


def resolve_config(
    model_name: str,
    dataset_name: str,
    *,
    n_videos: int | None = None,
    recipe: Path | None = None,
    settings: Sequence[str] = (),
) -> TrainConfig:
    """Put the settings of a training run together.

    Args:
        model_name: Key of `MODELS`.
        dataset_name: Chooses the recipe `<model>-<dataset>.toml`, where there is one.
        n_videos: Training videos that have features; below `FEW_VIDEOS` a dataset without a recipe
            of its own has `few_videos/<model>.toml`. None for the defaults.
        recipe: A TOML file whose settings win over that recipe's.
        settings: Each `key=value`; the value is TOML, a word needs no quotes. They win over all.

    Raises:
        ConfigError: If a file cannot be read, a key is not known, a value is out of its range or
            an ensemble is to select its epoch; the text names the file or option and the key.
    """
    if model_name not in MODELS:
        raise ConfigError(f"--model must be one of {', '.join(MODELS)}, instead got {model_name!r}")
    layers: list[tuple[str, dict[str, Any]]] = []
    candidates = [f"{model_name}-{dataset_name}.toml"]
    if n_videos is not None and n_videos < FEW_VIDEOS:
        candidates.append(f"few_videos/{model_name}.toml")
    found = [RECIPES / name for name in candidates if (RECIPES / name).is_file()]
    layers += [(path.name, _read_toml(path)) for path in found[:1]]
    if recipe is not None:
        layers.append((str(recipe), _read_toml(recipe)))
    layers += [(f"--set {setting}", _parse_setting(setting)) for setting in settings]
    values: dict[str, Any] = {"model_name": model_name}
    config = config_from_json(values)
    for source, layer in layers:  # one by one, so that an error can say whose it is
        try:
            _check_keys(config, layer)
            values = _merged(values, layer)
            config = config_from_json(values)
        except ConfigError as error:
            raise ConfigError(f"{_shorten(source)}: {error}") from error
    if config.ensemble and config.selection == "held_out":
        raise ConfigError(
            "selection must be budget for an ensemble, whose weights are those of networks after "
            "all steps, instead got held_out; add --set ensemble=false"
        )
    _check_model_size(config)
    return config


def with_streams(
    config: TrainConfig,
    stream_dims: tuple[tuple[str, int], ...],
    *,
    window_len: int | None = None,
) -> TrainConfig:
    """The same settings for features of these streams, and for videos of this length.

    Args:
        config: Any.
        stream_dims: As in `ModelConfig`.
        window_len: As in `ModelConfig`.

    Raises:
        ConfigError: If the streams are too many or too wide.
    """
    try:
        model = dataclasses.replace(config.model, stream_dims=stream_dims, window_len=window_len)
    except ValueError as error:
        raise ConfigError(f"the streams of the features: {error}") from error
    config = dataclasses.replace(config, model=model)
    _check_model_size(config)
    return config


def _check_model_size(config: TrainConfig) -> None:
    """Refuse a model that would not fit into memory, before anything is allocated."""
    with torch.device("meta"):
        tensors = model_class(config.model_name)(config.model).state_dict().values()
    n_parameters = sum(tensor.numel() for tensor in tensors)
    if n_parameters > MAX_PARAMETERS:
        raise ConfigError(
            f"a model must have at most {MAX_PARAMETERS} parameters, instead these settings "
            f"make {n_parameters}; lower the widths of model"
        )


def with_seed(config: TrainConfig, seed: int) -> TrainConfig:
    """The same settings for another seed.

    Raises:
        ConfigError: If it is negative or beyond 64 bits.
    """
    try:
        return dataclasses.replace(config, seed=seed)
    except ValidationError as error:
        raise ConfigError(f"--seed: {_describe(error, prefix='')}") from error


def config_to_json(config: TrainConfig) -> dict[str, Any]:
    """All settings as plain values, which `config_from_json` takes back."""
    values = dataclasses.asdict(config)
    for name in _FROM_VIDEOS:
        del values["model"][name]
    return values


def config_from_json(values: Mapping[str, Any]) -> TrainConfig:
    """Rebuild the settings that a run has kept.

    Args:
        values: What `config_to_json` gave, through JSON; what is left out has its default.

    Raises:
        ConfigError: If the model, a key or a value is not known.
    """
    rest = {key: value for key, value in values.items() if key not in ("model_name", "model")}
    model_name = str(values.get("model_name"))
    model = model_config_from_json(model_name, values.get("model", {}))
    try:
        return TrainConfig(model_name=model_name, model=model, **rest)
    except ValidationError as error:
        raise ConfigError(_describe(error, prefix="")) from error


def model_config_from_json(model_name: str, values: object) -> ModelConfig:
    """Rebuild a model's config from plain values.

    Args:
        model_name: Key of `MODELS`.
        values: What `dataclasses.asdict` gave, through JSON; what is left out has its default.

    Raises:
        ConfigError: If the model, a key or a value is not known.
    """
    if model_name not in MODELS:
        raise ConfigError(f"model must be one of {', '.join(MODELS)}, instead got {model_name!r}")
    if not isinstance(values, Mapping):
        raise ConfigError(f"model must be a table of settings, instead got {values!r}")
    config_type = model_class(model_name).config_type
    unknown = set(values) - {field.name for field in dataclasses.fields(config_type)}
    if unknown:
        raise ConfigError(f"settings of {model_name} must be known, instead got {sorted(unknown)}")
    # By way of JSON, because there a list of the right length is a tuple even to a strict check.
    try:
        text = json.dumps(values, default=str)
        model_config: ModelConfig = TypeAdapter(config_type).validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(_describe(error, prefix="model.")) from error
    except RecursionError as error:
        raise ConfigError(f"settings of {model_name} must be flat, not nested") from error
    return model_config


def _describe(error: ValidationError, *, prefix: str) -> str:
    """The first complaint: which key, what it must be, what came."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # raised by the config itself, in our own words
        return message
    key = prefix + ".".join(str(part) for part in first["loc"])
    message = message.replace("Input should", "must", 1)
    return f"{key} {message}, instead got {reprlib.repr(first['input'])}"


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."


def _read_toml(path: Path) -> dict[str, Any]:
    text = read_text(path, "a recipe in TOML", max_bytes=MAX_RECIPE_BYTES, error=ConfigError)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # not TOML, or nested too deep
        raise ConfigError(f"{path}: the recipe must be TOML ({error})") from error


def _parse_setting(setting: str) -> dict[str, Any]:
    key, equals, text = setting.partition("=")
    if not key.strip() or not equals:
        raise ConfigError(f"--set must be key=value, instead got {setting!r}")
    if len(setting.splitlines()) > 1:  # TOML would read the next line as another setting
        raise ConfigError(f"--set must be one line, instead got {_shorten(repr(setting))}")
    if key.count(".") > 2:  # deeper than any setting, and than Python's recursion allows
        raise ConfigError(f"--set: unknown key {_shorten(key)}; a key has at most one dot")
    value: Any
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()  # a bare word: shells make quotes a nuisance
    except RecursionError as error:
        raise ConfigError(f"--set {_shorten(setting)}: is nested too deep") from error
    for part in reversed(key.strip().split(".")):
        value = {part: value}
    layer: dict[str, Any] = value
    return layer


def _check_keys(config: TrainConfig, layer: Mapping[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(config)]
    known += [f"model.{field.name}" for field in dataclasses.fields(config.model)]
    settable = [key for key in known if key not in (*_NOT_SETTINGS, "model")]
    for key in _dotted(layer):
        if key in settable:
            continue
        near = difflib.get_close_matches(key, settable, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(settable)}"
        raise ConfigError(f"unknown key {key}; {hint}")


def _dotted(layer: Mapping[str, Any]) -> list[str]:
    """The keys of a layer, those of the table `model` with their prefix."""
    table = layer.get("model")
    if not isinstance(table, Mapping):
        return list(layer)
    return [key for key in layer if key != "model"] + [f"model.{key}" for key in table]


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both, with what is above winning; the table `model` is merged key by key."""
    merged = {**below, **above}
    if "model" in below and "model" in above:
        merged["model"] = {**below["model"], **above["model"]}
    return merged
