"""The `scoresde` command: the group of all commands, and its report of errors."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from keyword import iskeyword

import click
from click.core import ParameterSource

import scoresde
from scoresde._text import printable, reason_of
from scoresde.plain import nearest

from .command import refuse_torchrun

__all__ = ["cli", "main", "run"]

COMMANDS = (
    *("demo", "data", "train", "distill", "plot", "ema", "sample", "restore", "edit", "likelihood"),
    *("latent", "bench", "merge", "report", "inspect", "samplers", "verify", "check", "doctor"),
    *("import", "export"),
)

# Commands that several processes of torchrun run together.
TOGETHER = ("train", "sample", "likelihood", "bench")

# Mistakes of the user, and failures. All other exceptions are bugs and keep their traceback.
MISTAKES = (
    ValueError,
    TypeError,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
FAILURES = (RuntimeError, OSError, MemoryError)


class _LazyGroup(click.Group):
    """Imports the file of a command when the command is called; none of them imports torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        place = f"{name}_" if iskeyword(name) else name
        return getattr(import_module(f".{place}", __package__), place)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise click.UsageError(f"{name!r} is not a command; {nearest(name, COMMANDS)}")
        if name in COMMANDS and name not in TOGETHER:
            refuse_torchrun(name)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
    invoke_without_command=True,
)
@click.version_option(scoresde.__version__, prog_name="scoresde")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Score-based SDE/ODE generative models: sample, likelihood, benchmark.

    Start with `scoresde demo`, which compares eleven samplers on a shipped checkpoint.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main() -> None:
    """Run the command line: one line per error, exit 2 for usage and 1 for failure."""
    # Idle OpenMP threads that wait in a loop make a busy machine several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A lost connection between processes would print a C++ stack beside its one line.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # A terminal that cannot show σ or ± gets a question mark, not a crash.
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(errors="replace")
    warnings.formatwarning = _format_warning
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it complains of a missing HOME
    _raise_on_signals()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its errors become one line on stderr.

    Args:
        arguments: The words after `scoresde` on the command line.

    Returns:
        The exit status: 0 for success, 2 for a mistake of the user, 1 for a failure, 130 after
        Ctrl-C. If the reader of stdout has closed it, the status is 1 without a message.
    """
    try:
        status = cli.main(list(arguments), prog_name="scoresde", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()  # inside the block that catches a BrokenPipeError
    except (click.exceptions.Abort, KeyboardInterrupt):
        return 130
    except click.ClickException as error:
        return _complain(_usage(error), error.exit_code)
    except BrokenPipeError:
        # At its end the interpreter flushes stdout, and would report the error again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MISTAKES as error:
        return _complain(_reason(error), 2)
    except FAILURES as error:
        return _complain(_reason(error), 1)
    return status if isinstance(status, int) else 0


def _usage(error: click.ClickException) -> str:
    """Option, value and allowed values: `--steps: 0 is not an integer at least 1`."""
    if isinstance(error, click.NoSuchOption):
        near = f"; did you mean {error.possibilities[0]}?" if error.possibilities else ""
        return f"{error.option_name}: no such option{near}"
    if isinstance(error, click.BadParameter) and error.param is not None:
        name = max(error.param.opts, key=len)
        if isinstance(error, click.MissingParameter):
            return f"{name}: must be given. {getattr(error.param, 'help', None) or ''}"
        return f"{_place_of(error, name)}: {error.message}"
    return error.format_message()


def _place_of(error: click.BadParameter, name: str) -> str:
    """The option, or for a value from the file of --config the file and the key."""
    context = error.ctx
    if context is not None and error.param.name is not None:
        if context.get_parameter_source(error.param.name) is ParameterSource.DEFAULT_MAP:
            return f"{context.params['config']}: {error.param.name}"
    return name


def _reason(error: BaseException) -> str:
    """The message; for an error of the operating system, the file and the reason."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return reason_of(error)


def _complain(message: str, status: int) -> int:
    if sys.stderr is not None:
        print("error: " + printable(" ".join(message.split())), file=sys.stderr)
    return status


def _format_warning(message: object, *_: object, **__: object) -> str:
    return f"warning: {printable(str(message))}\n"


def _raise_on_signals() -> None:
    """Raise an exception on SIGTERM, and on SIGHUP when the terminal closes: files are then saved.

    A signal that is ignored stays ignored: `nohup` ignores SIGHUP.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _terminate)


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)
