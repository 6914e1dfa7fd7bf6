"""`pipeline ablate`: what each part of a model is worth."""

import json
from pathlib import Path

import click

from pipeline.cli.shared import (
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
    help="exclusive-or or bursts, which are drawn; or a dataset with features, by name or manifest "
    "CSV.  [default: exclusive-or for clav-como, else bursts]",
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
@click.option(
    "--seeds",
    "n_seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Train each arm so many times, with SEED, SEED + 1, ...",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path),
    help="File for every single training, kept up to date.",
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

    \b
    pipeline ablate
    pipeline ablate --model cbcg --dataset microworld --seeds 5 --json cbcg.json
    """
    with errors_in_one_line():
        from pipeline.cli.output_paths import check_outputs
        from pipeline.cli.terminal import show_progress
        from pipeline.device import choose_device, describe_device
        from pipeline.experiments.ablate import DEFAULT_DATASETS, as_json, as_table, choose_arms
        from pipeline.experiments.ablate import ablate as ablate_arms
        from pipeline.outputs import is_replaced, write_output
        from pipeline.progress import Progress

        arms = choose_arms(model, names)
        chosen_dataset = dataset or DEFAULT_DATASETS[model]
        check_outputs({"--json": json_path}, [Path(chosen_dataset)])
        chosen = choose_device(device)
        say(f"device: {describe_device(chosen)}")
        records = ablate_arms(
            model,
            chosen_dataset,
            features,
            arms=arms,
            seeds=range(seed, seed + n_seeds),
            settings=settings,
            device=chosen,
        )
        named = {"model_name": model, "dataset": chosen_dataset}
        measured = []
        n_runs = len(arms) * n_seeds
        with show_progress() as report:
            for record in records:
                measured.append(record)
                detail = f"{record.arm.name}: AUC {100 * record.values['AUC']:.1f}"
                report(Progress("ablate", len(measured), n_runs, "runs", detail))
                # Each time, because hours of training end in many ways.
                if json_path is not None and is_replaced(json_path):
                    write_output(json_path, _json_bytes(as_json(measured, **named)))
        if json_path is not None:
            write_output(json_path, _json_bytes(as_json(measured, **named)))
        click.echo(f"{model} on {chosen_dataset}; AUCs, false alarms and shares in percent,")
        click.echo("parameters in thousands; mean and deviation over seeds")
        click.echo(as_table(measured))


def _json_bytes(content: dict[str, object]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
