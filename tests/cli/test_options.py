"""Options: each is given once, belongs to a group, and is checked before torch is imported."""

import re
import subprocess
import sys

import click
import pytest
import scoresde_cli.main
from scoresde_cli.command import Command
from scoresde_cli.main import COMMANDS

EARLY = """
import sys, time
from scoresde_cli.main import run
for arguments in eval(sys.argv[1]):
    print(run(arguments), "torch" in sys.modules, flush=True)
"""


def commands():
    return {name: scoresde_cli.main.cli.get_command(None, name) for name in COMMANDS}


def options():
    return [
        pytest.param(name, option, id=f"{name} {option.opts[0]}")
        for name, command in commands().items()
        for option in command.params
        if isinstance(option, click.Option) and not option.is_eager
    ]


@pytest.mark.parametrize(("name", "option"), options())
def test_an_option_is_given_once(scoresde, name, option):
    """An option that is given twice is refused before its value is read."""
    one = [option.opts[0]] if option.is_flag else [option.opts[0], *["1"] * option.nargs]
    other = option.secondary_opts or one
    done = scoresde(name, *one, *other)
    if option.multiple:
        assert "times" not in done.err
        return
    assert done.status == 2
    assert done.err.startswith(f"error: {max(option.opts, key=len)}: is given 2 times; ")


def test_thrice_and_with_an_equals_sign(scoresde):
    done = scoresde("sample", "--n=4", "--checkpoint", "digits-vp", "--n", "4", "--n=8")
    assert done.err == "error: --n: is given 3 times; give one\n"
    done = scoresde("bench", "--nfe", "5", "--nfe", "10")
    assert done.err == "error: --nfe: is given 2 times; separate values by commas\n"


def test_help_is_given_whatever_else_there_is(scoresde):
    assert scoresde("sample", "--n", "4", "--n", "8", "--help").status == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_lists_every_option_once(scoresde, name):
    command = commands()[name]
    assert isinstance(command, Command)
    text = scoresde(name, "--help").out.rpartition("Example:")[2].partition("\n\n")[2]
    for option in (p for p in command.params if isinstance(p, click.Option)):
        assert len(re.findall(rf"^  {option.opts[0]}[ \n]", text, re.M)) == 1, option.opts[0]


def test_the_many_options_of_likelihood_stand_in_groups(scoresde):
    text = scoresde("likelihood", "--help").out
    groups = commands()["likelihood"].groups
    assert [line[:-1] for line in text.splitlines() if line[:1].strip() and line.endswith(":")] == [
        *groups,
        "Options",  # --help alone
    ]
    named = [name for names in groups.values() for name in names]
    assert len(named) == len(set(named)) == len(commands()["likelihood"].params)


OUT = ["--out", "out"]
DIGITS = ["--checkpoint", "digits-vp"]
MISTAKES = [
    ["smaple"],
    ["sample"],
    ["sample", "--checkpoint", "none", *OUT],
    ["sample", "--checkpoint", "none.safetensors", *OUT],
    ["sample", "--checkpoint", ".", *OUT],
    ["sample", "--checkpoint", "x" * 300, *OUT],
    ["sample", *DIGITS, "--sampler", "dimm", *OUT],
    ["sample", *DIGITS, "--sampler", "dimm:eta=0", *OUT],
    ["sample", "--sampler", "ddim:eta=9", "--checkpoint", "none", *OUT],
    ["sample", *DIGITS, "--grid", "logsnr", *OUT],
    ["sample", *DIGITS, "--grid", "none.json", *OUT],
    ["sample", *DIGITS, "--grid", "x" * 300 + ".json", *OUT],
    ["sample", *DIGITS, "--n", "0", *OUT],
    ["sample", *DIGITS, "--n", "4", "--n", "8", *OUT],
    ["sample", *DIGITS, "--device", "tpu", *OUT],
    ["sample", *DIGITS, "--out", "/dev/null/out"],
    ["sample", *DIGITS, "--out", "x" * 300],
    ["bench", *DIGITS, "--samplers", "ddim,dimm", *OUT],
    ["bench", *DIGITS, "--grids", "log_snr,none.json", *OUT],
    ["bench", "--checkpoint", "none", *OUT],
    ["likelihood", *DIGITS, "--data", "digit", *OUT],
    ["likelihood", *DIGITS, "--data", "none/data.npy", *OUT],
    ["likelihood", *DIGITS, "--data-root", "none", *OUT],
    ["likelihood", *DIGITS, "--trace", "exakt", *OUT],
    ["likelihood", *DIGITS, "--image-error", "inf", *OUT],
    ["latent", *DIGITS, "--data", "digit", *OUT],
    ["train", "--config", "digits-vp", *OUT],
    ["train", "--config", "none.toml", *OUT],
    ["verify", "--sdes", "subv"],
    ["verify", "--samplers", "dimm"],
    ["verify", "--checkpoint", "none"],
    ["report", "--run", "none"],
    ["inspect"],
    ["inspect", "--checkpoint", "none"],
]


@pytest.fixture(scope="module")
def early(tmp_path_factory):
    """(status, whether torch was imported, error) of each mistake, all in one process."""
    done = subprocess.run(
        [sys.executable, "-c", EARLY, repr(MISTAKES)],
        cwd=tmp_path_factory.mktemp("early"),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    return [(*line, error) for line, error in zip(lines, done.stderr.splitlines(), strict=True)]


@pytest.mark.parametrize("i", range(len(MISTAKES)), ids=[" ".join(m)[:60] for m in MISTAKES])
def test_mistakes_are_told_before_torch_is_imported(early, i):
    """Importing torch takes seconds, and half a minute on a busy machine."""
    status, torch_imported, error = early[i]
    assert (status, torch_imported) == ("2", "False"), error
    assert error.startswith("error: ")


def test_two_rounds_leave_the_same_errors(scoresde):
    """An error that only the library can find names its option as well."""
    done = scoresde("bench", *DIGITS, "--samplers", "ddim,heun:churn=x", *OUT)
    assert done.status == 2
    assert done.err.startswith("error: --samplers: sampler heun.churn must be a number, got 'x'")
