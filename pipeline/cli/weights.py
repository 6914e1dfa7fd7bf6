"""`pipeline weights`: list, download and verify the published weights."""

import click

from pipeline.cli.shared import errors_in_one_line


@click.group()
def weights() -> None:
    """List the published weights, download them, or check them.

    \b
    pipeline weights list
    pipeline weights fetch kinetics
    pipeline weights check
    """


@weights.command(name="list")
def list_weights() -> None:
    """List the weights that have a name: source, license, checksum, path in the cache."""
    from extractors.networks.weights import NAMED, cached_path

    for name, named in NAMED.items():
        click.echo(f"{name}: {named.source}")
        click.echo(f"  license: {named.licence}; conversion: {named.conversion}")
        for stream, file in named.files.items():
            path = cached_path(name, stream)
            click.echo(f"  {stream}: {file.address}")
            click.echo(f"    checksum: {file.describe_checksum()}")
            click.echo(f"    {'in the cache' if path.exists() else 'to be put'} at {path}")


@weights.command()
@click.argument("names", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Download weights into the cache, verify their checksums, and load them into their network.

    \b
    pipeline weights fetch kinetics raft-small
    """
    with errors_in_one_line():
        from extractors.networks.weights import load_weights, named_weights

        for name in names:
            named = named_weights(name)
            loaded = load_weights(name, named.network, tuple(named.files))
            for stream, sha256 in loaded.sha256.items():
                click.echo(f"{name} {stream}: whole, sha256 {sha256}")


@weights.command()
@click.argument("names", nargs=-1)
def check(names: tuple[str, ...]) -> None:
    """Verify the weights in the cache and load them into their networks; nothing is downloaded.

    Without NAMES, all weights in the cache.

    \b
    pipeline weights check
    pipeline weights check kinetics
    """
    with errors_in_one_line():
        from extractors.networks.weights import (
            NAMED,
            WeightsError,
            cached_path,
            load_weights,
            named_weights,
        )

        for name in names or NAMED:
            named = named_weights(name)
            for stream in named.files:
                path = cached_path(name, stream)
                if path.exists():
                    load_weights(name, named.network, (stream,))
                    click.echo(f"{name} {stream}: whole, {path}")
                elif name in names:
                    raise WeightsError(f"{path}: not there; try `pipeline weights fetch {name}`")
                else:
                    click.echo(f"{name} {stream}: not there, {path}")
