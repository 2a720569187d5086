"""The command itself: it starts fast because it imports no torch, and it reports errors."""

import os
import resource
import statistics
import subprocess
import sys

import click
import pytest
import scoresde_cli.main
from scoresde_cli import names
from scoresde_cli.main import COMMANDS

import scoresde as library
from scoresde import likelihood
from scoresde.comparison import checked, measures
from scoresde.data import dataset_status
from scoresde.names import grids, guidance, inverse, operators, samplers
from scoresde.tasks.likelihood import request as score_request
from scoresde.verification import claims

START = [sys.executable, "-c", "from scoresde_cli.main import main; main()"]
WITHOUT_TORCH = """
import sys
from scoresde_cli.main import run
for line in sys.argv[1:]:
    assert run(line.split()) == 0, line
    assert "torch" not in sys.modules, f"{line!r} imported torch"
"""


def cpu_seconds(command):
    """CPU time of a command, which does not depend on other processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_and_version_import_no_torch():
    """In one process, which the first of them that imports torch ends."""
    lines = ["--help", "--version", "", *(f"{name} --help" for name in COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *lines], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_take_less_than_half_a_second(option):
    assert statistics.median(cpu_seconds([*START, option]) for _ in range(3)) < 0.5


def test_version(scoresde):
    assert library.__version__ in scoresde("--version").out


def test_without_arguments_it_helps(scoresde):
    done = scoresde()
    assert done.status == 0
    assert all(name in done.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_documented_options(name):
    command = scoresde_cli.main.cli.get_command(None, name)
    assert f"scoresde {name}" in command.help
    assert all(p.help for p in command.params if isinstance(p, click.Option)), name


def test_an_option_means_the_same_everywhere():
    """One name, one type: --n is an integer in all commands that have it."""
    kinds = {}
    for name in COMMANDS:
        for option in scoresde_cli.main.cli.get_command(None, name).params:
            # lists in bench, a number elsewhere; a flag in bench, the kind of data in train;
            # a name of likelihood, a name with parameters of restore
            if option.opts[0] not in (
                "--nfe",
                "--likelihood",
                "--t-min",
                "--new-config",
                "--guidance",
                "--method",
            ):
                kinds.setdefault(option.opts[0], set()).add(option.type.name)
    assert {name: found for name, found in kinds.items() if len(found) > 1} == {}


def test_help_knows_what_the_library_knows():
    known = {
        "SAMPLERS": samplers.SAMPLERS,
        "GRIDS": grids.GRIDS,
        "GUIDANCES": guidance.GUIDANCES,
        "OPERATORS": operators.OPERATORS,
        "INVERSE_METHODS": inverse.METHODS,
        "TRACES": likelihood.TRACES,
        "PROTOCOLS": score_request.PROTOCOLS,
        "METHODS": ["auto", *likelihood.METHODS],
        "LABELS": checked.LABELS,
        "DEFAULT_METRICS": measures.DEFAULT_METRICS,
        "QUALITY_METRICS": measures.QUALITY_METRICS,
        "SDES": claims.CHECKED_SDES,
        "DATA_SETS": [row.name for row in dataset_status()],
    }
    assert set(known) == set(names.__all__)
    for name, wanted in known.items():
        assert sorted(getattr(names, name)) == sorted(wanted), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smaple"], "error: 'smaple' is not a command; did you mean sample?"),
        (["zzz"], "error: 'zzz' is not a command; allowed: demo, data, train"),
        (["data", "--jsno"], "error: --jsno: no such option; did you mean --json?"),
        (["--versoin"], "error: --versoin: no such option; did you mean --version?"),
        (["sample"], "error: --checkpoint: must be given. A checkpoint file"),
        (["sample", "--steps"], "error: Option '--steps' requires an argument."),
        (["data", "extra"], "error: Got unexpected extra argument"),
    ],
)
def test_usage_errors_are_one_line_with_status_2(scoresde, arguments, message):
    done = scoresde(*arguments)
    assert done.status == 2
    assert done.err.startswith(message)
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ValueError("n must be\nat least 1"), 2, "error: n must be at least 1"),
        (TypeError("n must be a number"), 2, "error: n must be a number"),
        (FileNotFoundError(2, "No such file", "a.npy"), 2, "error: a.npy: No such file"),
        (PermissionError(13, "Permission denied", "a"), 2, "error: a: Permission denied"),
        (OSError(28, "No space left on device", "a"), 1, "error: a: No space left on device"),
        (RuntimeError("the solver gave up"), 1, "error: the solver gave up"),
        (MemoryError(), 1, "error: MemoryError"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_statuses_of_mistakes_and_failures(scoresde, monkeypatch, error, status, message):
    def fail():
        raise error

    monkeypatch.setattr("scoresde.data.dataset_status", fail)
    done = scoresde("data")
    assert done.status == status
    assert done.err.strip() == message


def test_a_bug_keeps_its_traceback(scoresde, monkeypatch):
    monkeypatch.setattr("scoresde.data.dataset_status", lambda: {}["bug"])
    with pytest.raises(KeyError):
        scoresde("data")


def test_sigterm_is_an_exception_with_status_143():
    with pytest.raises(SystemExit) as stop:
        scoresde_cli.main._terminate(15, None)
    assert stop.value.code == 143


def test_warnings_are_one_line():
    assert scoresde_cli.main._format_warning("look", UserWarning, "file.py", 3) == "warning: look\n"


def test_a_closed_pipe_and_no_stdin_are_quiet():
    """`scoresde --help | head -0`, where the reader has gone before the first byte."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*START, "--help"], stdin=subprocess.DEVNULL, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.slow
def test_locale_c_no_home_and_a_read_only_folder(tiny_checkpoint, tmp_path):
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HOME", "LC_", "LANG", "XDG", "MPL"))
    }
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    sample = ["sample", "--checkpoint", tiny_checkpoint, "--steps", "1", "--n", "2"]
    for command in ([*sample, "--out", tmp_path / "out"], ["data"]):
        done = subprocess.run(
            [*START, *command],
            cwd="/proc",
            env=environment | {"HOME": "/proc/none"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        assert (done.returncode, done.stderr) == (0, b"")


ESCAPES = "\x1b[2J\x1b]0;title\x07\u202e\x9b31m\udc80\r"


def test_errors_do_not_command_the_terminal(scoresde):
    done = scoresde("sample", "--checkpoint", f"{ESCAPES}x.safetensors", "--out", "out")
    assert done.status == 2
    assert done.err.rstrip("\n").isprintable()
    assert r"\x1b[2J" in done.err


def test_warnings_do_not_command_the_terminal():
    line = scoresde_cli.main._format_warning(f"left out {ESCAPES}")
    assert line.rstrip("\n").isprintable()


@pytest.mark.parametrize("command", [["doctor", "x"], ["report"], ["bench", "--plan"]])
def test_commands_of_one_process_refuse_torchrun(scoresde, monkeypatch, command):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    options = ["--checkpoint", "digits-vp"] if command[0] == "bench" else []
    done = scoresde(*command, *options)
    assert (done.status, done.out) == (2, "")
    words = " ".join(command) if command[0] == "bench" else command[0]
    assert done.err == (
        f"error: {words}: runs in one process, and torchrun started 2; start it without torchrun\n"
    )
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    done = scoresde(*command, *options)
    assert (done.status, done.out, done.err) == (2, "", "")
