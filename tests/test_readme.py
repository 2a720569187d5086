"""The README says what CI does, and its example runs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from scoresde_cli.main import COMMANDS

from scoresde.registry import SAMPLERS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
LINES = ("pip install . && scoresde demo", "pip install '.[test]' && pytest")


@pytest.mark.parametrize("line", LINES)
def test_the_readmes_two_lines_are_those_of_ci(line):
    assert line in README.splitlines()
    assert line in CI


def test_ci_runs_nothing_else_but_the_slow_tests():
    assert [x for x in CI if re.match(r"(pip|pytest|scoresde)\b", x)] == [*LINES, "pytest -m slow"]


def test_the_example_runs_as_printed():
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bits/dim" in done.stdout


@pytest.mark.parametrize("name", [*SAMPLERS, *COMMANDS])
def test_every_sampler_and_command_is_named(name):
    assert f"`{name}`" in README or f"scoresde {name}" in README
