"""`pipeline ablate`: what each part of a model is worth."""

from pathlib import Path

import click

from pipeline.cli.shared import (
    count_option,
    device_option,
    errors_in_one_line,
    features_option,
    model_option,
    say,
    seed_option,
)


@click.command()
@model_option
@click.option(
    "--dataset",
    help="exclusive-or or bursts, which are synthetic; or a dataset with features, by name or "
    "manifest CSV.  [default: exclusive-or for clav-como, else bursts]",
)
@features_option
@click.option(
    "--arm", "names", multiple=True, help="Only arms whose name begins so; may be repeated."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting of all arms, such as steps=500; may be repeated.",
)
@seed_option
@count_option(
    "--seeds", "n_seeds", default=5, help="Train each arm so many times, with SEED, SEED + 1, ..."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    help="File for every single run, kept up to date.",
)
@device_option
def ablate(
    model: str,
    dataset: str | None,
    features: Path,
    names: tuple[str, ...],
    settings: tuple[str, ...],
    seed: int,
    n_seeds: int,
    json_path: Path | None,
    device: str,
) -> None:
    """Train a model without its parts, or with others in their place, and compare.

    Each arm is compared with the model's default, or with the first arm where that one is not
    chosen: the difference of the mean AUC with a 95 % interval over test videos and seeds. An
    asterisk marks an interval that excludes 0.

    \b
    pipeline ablate
    pipeline ablate --model cbcg --dataset microworld --json cbcg.json
    """
    with errors_in_one_line():
        from pipeline.cli.output_paths import check_outputs
        from pipeline.cli.terminal import format_table, show_progress
        from pipeline.device import choose_device, describe_device
        from pipeline.evaluation.paired_jackknife import WHY_NO_INTERVAL
        from pipeline.experiments.ablate import DEFAULT_DATASETS, Plan, choose_arms
        from pipeline.experiments.ablate import ablate as ablate_arms

        arms = choose_arms(model, names)
        chosen_dataset = dataset or DEFAULT_DATASETS.get(model, "bursts")
        check_outputs({"--json": json_path}, [Path(chosen_dataset)])
        chosen = choose_device(device)
        say(f"device: {describe_device(chosen)}")
        seeds = range(seed, seed + n_seeds)
        plan = Plan(model, chosen_dataset, features, arms, seeds, settings, chosen)
        with show_progress() as report:
            done = ablate_arms(plan, json_path=json_path, report=report)
        click.echo(f"{model} on {chosen_dataset}; AUCs, false alarms and fractions in percent,")
        click.echo("parameters in thousands; mean and deviation over seeds")
        click.echo(f"differences in AUC to: {done.reference.name}; * the interval excludes 0")
        if any(found.low is None for found in done.differences().values()):
            click.echo(WHY_NO_INTERVAL)
        click.echo(format_table("", *done.table()))
