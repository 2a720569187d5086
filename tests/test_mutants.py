"""The list of mutants can be tried: see `tests/mutants.py`, which is run by hand."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def mutants():
    path = Path(__file__).with_name("mutants.py")
    spec = importlib.util.spec_from_file_location("mutants", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["mutants"]


def test_every_mutant_can_be_made_of_the_code_as_it_is(mutants):
    assert mutants.check() == []


def test_there_are_enough_and_no_two_of_a_name(mutants):
    names = [mutant.name for mutant in mutants.MUTANTS]
    assert len(names) == len(set(names)) >= 60


def test_they_are_of_all_packages(mutants):
    packages = {Path(mutant.path).parts[1] for mutant in mutants.MUTANTS}
    folders = {path.parent.name for path in (mutants.ROOT / "scoresde").glob("*/__init__.py")}
    assert folders - {"assets"} <= packages
