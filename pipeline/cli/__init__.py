"""The command line: each command parses its options, calls one function and prints the result.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 an error in one line,
2 a usage error, 3 finished but some videos failed, 130 interrupted.
"""

import logging
import os
import signal
import sys
from types import FrameType
from typing import Any

import click

import pipeline
from pipeline.cli import (
    ablate,
    bench,
    bench_training,
    calibrate,
    datasets,
    evaluate,
    extract,
    features,
    groundtruth,
    import_features,
    reproduce,
    runs,
    score,
    train,
    watch,
    weights,
)
from pipeline.cli.shared import INTERRUPTED, quiet_option, set_verbose, verbose_option

BROKEN_PIPE = 141  # as if SIGPIPE had ended the process


class Commands(click.Group):
    """All commands: exit codes of an interrupt (Ctrl-C) and of a closed pipe."""

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, with the options that all have."""
        _give_options(cmd)
        super().add_command(cmd, name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; Ctrl-C and a closed pipe end it without a traceback."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # What is still to be flushed at the end goes nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)


def _give_options(command: click.Command) -> None:
    if isinstance(command, click.Group):
        for each in command.commands.values():
            _give_options(each)
    else:
        command.params += [quiet_option, verbose_option]


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, or end the process at once while it imports a module.

    Python discards an exception that is raised in a callback of its import system: the Ctrl-C would
    be lost. A process that imports has written nothing that another one could not clean up.
    """
    caller = frame
    while caller is not None:
        if caller.f_code.co_filename.startswith("<frozen importlib"):
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, b"interrupted\n")
            os._exit(INTERRUPTED)
        caller = caller.f_back
    raise KeyboardInterrupt


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(pipeline.__version__, prog_name="lookaround")
@click.option("-v", "--verbose", is_flag=True, help="Log more of what is done.")
def main(verbose: bool) -> None:
    """From raw video to an anomaly score for every frame.

    \b
    pipeline extract xd_violence          videos -> features
    pipeline train                        features -> a trained model
    pipeline score video.mp4 --out s.csv  a video -> a score for every frame
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, _interrupt)
    # OpenMP reads this when torch is loaded. Threads that spin while they wait for each other take
    # the processor from other programs, and on a busy machine from each other.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Child processes would look for Python's own modules in the current folder first, which may
    # hold other people's videos.
    os.environ.setdefault("PYTHONSAFEPATH", "1")
    # decord adds to it when it is imported.
    os.environ.setdefault("PATH", os.defpath)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr
    )
    set_verbose(verbose)
    # Warnings of libraries go to the log.
    logging.captureWarnings(True)


main.add_command(extract.extract)
main.add_command(train.train)
main.add_command(evaluate.evaluate)
main.add_command(runs.runs_command)
main.add_command(score.score)
main.add_command(watch.watch)
main.add_command(calibrate.calibrate)
main.add_command(ablate.ablate)
main.add_command(datasets.datasets)
main.add_command(features.features)
main.add_command(import_features.import_features)
main.add_command(reproduce.reproduce)
main.add_command(groundtruth.groundtruth)
main.add_command(bench.bench)
main.add_command(weights.weights)
main.add_command(bench_training.bench_training)
