"""`pipeline train`: a model from features and video-level labels."""

from __future__ import annotations

from pathlib import Path

import click
from click.core import ParameterSource

from pipeline.cli.scoring_options import extractor_weights_options
from pipeline.cli.shared import (
    device_option,
    errors_in_one_line,
    model_option,
    runs_option,
    seed_option,
)


@click.command()
@click.argument("dataset", default="xd_violence")
@click.option(
    "--features",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of feature files.  [default: features; with --resume the one that the run began "
    "with]",
)
@runs_option
@model_option
@click.option(
    "--recipe", type=click.Path(path_type=Path), help="TOML file of settings that differ."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, such as learning_rate=1e-4 or model.margin=1; may be repeated.",
)
@seed_option
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    help="Train so many times, with SEED, SEED + 1, ...; all score together.  [default: 3 of an "
    "ensemble, which clav-como is with fewer than 1,000 training videos, else 1]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the latest run that was stopped, with the settings that it began with.",
)
@click.option(
    "--tensorboard", is_flag=True, help="Also write TensorBoard files; needs an extra package."
)
@device_option
@extractor_weights_options
@click.pass_context
def train(
    ctx: click.Context,
    dataset: str,
    features: Path | None,
    runs: Path,
    model: str,
    recipe: Path | None,
    settings: tuple[str, ...],
    seed: int,
    seeds: int | None,
    resume: bool,
    tensorboard: bool,
    device: str,
    weights: str | None,
    flow_weights: str | None,
) -> None:
    """Learn a model from a dataset's features and its video-level labels.

    DATASET is a dataset's name or a manifest CSV, xd_violence by default.

    \b
    pipeline train
    pipeline train my_cameras.csv --seeds 3 --set steps=2000
    pipeline train --set selection=held_out
    """
    if resume:
        _refuse_with_resume(ctx, "recipe", "settings", "seed", "seeds")
    with errors_in_one_line():
        from pipeline.datasets import load_dataset

        load_dataset(dataset, allow_outside=True)  # refused before torch is loaded

        from pipeline.cli.terminal import show_progress
        from pipeline.runs.run_folder import descriptions_of_command
        from pipeline.training.train import train as train_model

        with show_progress() as report:
            run = train_model(
                dataset,
                model=model,
                seed=seed,
                seeds=seeds,
                recipe=recipe,
                settings=settings,
                device=device,
                weights=weights,
                flow_weights=flow_weights,
                features=features,
                runs=runs,
                resume=resume,
                tensorboard=tensorboard,
                report=report,
            )
        for each in descriptions_of_command(run):
            click.echo(f"run: {each.folder}")


def _refuse_with_resume(ctx: click.Context, *names: str) -> None:
    """A run goes on with its own settings: others would be ignored."""
    for name in names:
        if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE:
            option = next(each.opts[0] for each in ctx.command.params if each.name == name)
            raise click.UsageError(
                f"{option} cannot be given with --resume, which goes on with the settings that "
                f"the run began with; leave out {option}, or train anew without --resume"
            )
