"""`scoresde samplers`."""

import inspect
import json

import pytest

from scoresde.names.samplers import SAMPLERS, parse_sampler
from scoresde.tasks.sampler_list import list_samplers


def test_every_parameter_has_its_default_and_a_meaning():
    found = {row["name"]: row for row in list_samplers()}
    assert list(found) == list(SAMPLERS)
    for name, make in SAMPLERS.items():
        signature = inspect.signature(make).parameters
        assert found[name]["about"]
        rows = found[name]["parameters"]
        assert {row["name"]: row["default"] for row in rows} == {
            key: parameter.default for key, parameter in signature.items()
        }
        assert all(len(row["meaning"]) > 5 for row in rows), name


def test_what_it_prints_can_be_given_back(scoresde):
    """Name and settings of each line are a sampler, the default one."""
    done = scoresde("samplers")
    assert done.status == 0
    lines = [line.split(maxsplit=1) for line in done.out.splitlines()]
    assert [name for name, *_ in lines] == list(SAMPLERS)
    for name, *settings in lines:
        text = ":".join([name, *(settings[0].split(", ") if settings else [])])
        assert parse_sampler(text) == parse_sampler(name)


@pytest.mark.parametrize("name", ["edm", "pc", "rk4", "dpm-2"])
def test_one_is_explained(scoresde, name):
    done = scoresde("samplers", "--sampler", name)
    assert done.out.startswith(f"{name}: ")
    for row in list_samplers(name)[0]["parameters"]:
        assert row["meaning"] in done.out
    assert json.loads(scoresde("samplers", "--sampler", name, "--json").out)[0]["name"] == name
