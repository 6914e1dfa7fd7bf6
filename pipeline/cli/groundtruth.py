"""`pipeline groundtruth`: the frame labels of a test split, by our rule or a published one."""

from pathlib import Path

import click

from pipeline.cli.shared import (
    allow_outside_option,
    errors_in_one_line,
    features_option,
    videos_option,
)
from pipeline.printable import printable


@click.command()
@click.argument("dataset")
@click.option(
    "--convention",
    default="annotation",
    show_default=True,
    metavar="NAME",
    help="Rule: annotation (cut to each video's true length), or a published one, such as rtfm.",
)
@click.option(
    "--list", "is_listing", is_flag=True, help="Only list the published rules of the dataset."
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="NumPy file of labels to write, - for stdout."
)
@click.option(
    "--audit",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A gt.npy to compare with ours: which rule and order explain it.",
)
@click.option(
    "--order",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Text file with the order of the test videos in the file to audit, one name a line.",
)
@features_option
@videos_option
@allow_outside_option
def groundtruth(
    dataset: str,
    convention: str,
    is_listing: bool,
    out: Path | None,
    audit: Path | None,
    order: Path | None,
    features: Path,
    videos: Path | None,
    allow_outside: bool,
) -> None:
    """Make the frame labels of a dataset's test split, or audit a file of such labels.

    The numbers of frames are read from the features; those of UCF-Crime's test videos are known.
    Published results rest on other lengths than the true ones, each with its own rule.

    \b
    pipeline groundtruth ucf_crime --list
    pipeline groundtruth ucf_crime --convention rtfm --out gt.npy
    pipeline groundtruth ucf_crime --audit downloaded-gt.npy
    """
    with errors_in_one_line():
        from pipeline.cli.output_paths import check_outputs
        from pipeline.datasets import load_dataset
        from pipeline.evaluation.ground_truth import describe_conventions, make_ground_truth
        from pipeline.evaluation.ground_truth_audit import audit_ground_truth, read_order

        if out is not None and (is_listing or audit is not None):
            raise click.UsageError("--out has no use with --list or --audit")
        check_outputs({"--out": out})
        loaded = load_dataset(dataset, videos, allow_outside=allow_outside)
        if is_listing:
            lines = describe_conventions(loaded.name)
        elif audit is not None:
            names = None if order is None else read_order(order)
            lines = audit_ground_truth(audit, loaded, features, order=names).describe()
        else:
            truth = make_ground_truth(loaded, features, convention=convention)
            lines = truth.describe()
            if out is not None:
                truth.write(out)
        for line in lines:
            click.echo(printable(line), err=out == Path("-"))
