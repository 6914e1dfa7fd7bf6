"""The options that choose an extractor: choices, defaults and help texts come from its registries.

None of them has a value unless it is given, so that a profile can tell what the user asked for.
"""

import click

from extractors.names import (
    CROP_COUNTS,
    DEFAULT_CROPS,
    DEFAULT_EXTRACTOR,
    DEFAULT_FLOW,
    EXTRACTORS,
    FLOWS,
    NO_FLOW,
    PRECISIONS,
)

_NETWORKS = "; ".join(
    f"{name}: {entry.help}" + ("" if entry.has_flow else f" (--flow {NO_FLOW})")
    for name, entry in EXTRACTORS.items()
)
_METHODS = "; ".join(f"{name}: {entry.help}" for name, entry in FLOWS.items())
_DEFAULT_WEIGHTS = ", ".join(
    f"{entry.default_weights} for {name}" for name, entry in EXTRACTORS.items()
)
_FLOW_WEIGHTS = "; ".join(
    f"with --flow {name}: {', '.join(entry.weights)} or a file of your own"
    for name, entry in FLOWS.items()
    if entry.weights is not None
)
_DEFAULT_FLOW_WEIGHTS = ", ".join(entry.weights[0] for entry in FLOWS.values() if entry.weights)

extractor_option = click.option(
    "--extractor",
    type=click.Choice([*EXTRACTORS]),
    help=f"Network. {_NETWORKS}.  [default: {DEFAULT_EXTRACTOR}]",
)
flow_option = click.option(
    "--flow",
    type=click.Choice([*FLOWS, NO_FLOW]),
    help=f"Optical flow. {_METHODS}; {NO_FLOW}: RGB only.  [default: {DEFAULT_FLOW}]",
)
crops_option = click.option(
    "--crops",
    type=click.Choice([str(n_crops) for n_crops in CROP_COUNTS]),
    help="Crops of each frame: center; center and corners; these and their mirror images.  "
    f"[default: {DEFAULT_CROPS}]",
)
weights_option = click.option(
    "--weights",
    help="A name of `pipeline weights list`, random:SEED, or a file or folder of your own.  "
    f"[default: {_DEFAULT_WEIGHTS}]",
)
flow_weights_option = click.option(
    "--flow-weights",
    help=f"Weights of a flow network. {_FLOW_WEIGHTS}.  [default: {_DEFAULT_FLOW_WEIGHTS}]",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    show_default=True,
    help="Of the networks. auto: bfloat16 where the device supports it natively.",
)
