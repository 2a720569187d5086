"""A new class can be found by its name, or a test reports where the name is missing."""

import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import scoresde
from scoresde.likelihood.method import LikelihoodMethod
from scoresde.likelihood.trace.rules import TraceRule
from scoresde.names.kinds import SDES
from scoresde.names.samplers import SAMPLERS, parse_sampler
from scoresde.noise import Noise
from scoresde.samplers import Corrector, Sampler
from scoresde.score import ScoreModel
from scoresde.sde import SDE

README = Path(__file__).parents[1] / "README.md"
KINDS = [SDE, ScoreModel, Noise, Sampler, Corrector, LikelihoodMethod, TraceRule]


def concrete(kind):
    """The classes of a kind that the package defines, but for abstract and private ones."""
    for module in pkgutil.walk_packages(scoresde.__path__, "scoresde."):
        import_module(module.name)
    found, waiting = [], [kind]
    while waiting:
        cls = waiting.pop()
        waiting += cls.__subclasses__()
        ours = cls.__module__.startswith("scoresde.") and not cls.__name__.startswith("_")
        if ours and not inspect.isabstract(cls):
            found.append(cls)
    return found


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_every_class_is_exported_by_its_room_and_by_the_package(kind):
    for cls in concrete(kind):
        room = cls.__module__.split(".")[1]
        exported = import_module(f"scoresde.{room}").__all__
        assert cls.__name__ in exported, f"scoresde.{room} does not export {cls.__name__}"
        assert getattr(scoresde, cls.__name__, None) is cls, f"scoresde.{cls.__name__} is missing"


def test_every_sampler_has_a_name_that_makes_it():
    made = {type(parse_sampler(name)) for name in SAMPLERS}
    # Those of `inverse` run on a model with a measurement, which `bench` does not have.
    free = [cls for cls in concrete(Sampler) if not cls.__module__.startswith("scoresde.inverse.")]
    missing = [cls.__name__ for cls in free if cls not in made]
    assert not missing, f"names.samplers.SAMPLERS has no name for {missing}"


def test_every_sde_has_a_name_in_configs():
    missing = [cls.__name__ for cls in concrete(SDE) if cls not in SDES.values()]
    assert not missing, f"names.config.SDES has no name for {missing}"


def test_the_readme_lists_every_sampler():
    text = README.read_text(encoding="utf-8")
    missing = [name for name in SAMPLERS if f"`{name}`" not in text]
    assert not missing, f"README.md does not list {missing}"


def test_a_name_has_one_home():
    """No two packages export one name, and no exported name hides a module."""
    names = [name for name in scoresde.__all__ if name != "__version__"]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice, f"{twice} are exported twice, or are modules as well"
    modules = {module.name for module in pkgutil.iter_modules(scoresde.__path__)}
    hidden = set(names) & modules - {"grid", "metrics", "nets", *scoresde._ROOMS}
    assert not hidden, f"{sorted(hidden)} are modules as well"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'scoresde' has no attribute 'Nothing'"):
        scoresde.Nothing  # noqa: B018


def run_alone(program):
    subprocess.run([sys.executable, "-c", inspect.cleandoc(program)], check=True, timeout=120)


def test_import_alone_is_instant():
    """It imports no torch and no module of its own."""
    run_alone("""
        import sys, scoresde
        assert not {"torch", "numpy"} & set(sys.modules)
        assert not [name for name in sys.modules if name.startswith("scoresde.")]
    """)


@pytest.mark.slow  # it imports torch once more
def test_a_name_imports_what_it_needs():
    """`dir` and * know every name."""
    run_alone("""
        import sys, scoresde
        scoresde.VP
        assert "scoresde.samplers" not in sys.modules
        from scoresde import *
        assert {"DDIM", "AdaptiveSDE", "grid", "load"} <= set(globals()) & set(dir(scoresde))
        assert "torch._dynamo" not in sys.modules  # it takes a second more
    """)
