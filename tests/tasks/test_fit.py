"""`scoresde.fit`: an array in, a checkpoint out."""

import json
import tomllib

import numpy as np
import pytest
import torch

import scoresde
from scoresde.checkpoint import CheckpointError
from scoresde.plain import ConfigError
from scoresde.tasks.train.defaults import default_tables
from scoresde.tasks.train.fit import _toml

pytestmark = pytest.mark.usefixtures("no_pictures")

TINY = {"net": {"kind": "mlp", "width": 8, "depth": 1}}


@pytest.fixture
def x():
    """Twenty points in the plane."""
    return np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)


def test_the_model_samples_and_the_folder_serves_the_commands(x, tmp_path):
    checkpoint = scoresde.fit(x, tmp_path, steps=2, config=TINY)
    assert scoresde.sample(checkpoint.model, n=3, nfe=3).x.shape == (3, 2)
    assert checkpoint.metadata["steps_done"] == 2
    assert checkpoint.data.shape == (2,)
    data = scoresde.load_dataset(checkpoint.config.data)
    assert torch.equal(data.x, torch.from_numpy(x))
    # The config that is kept there trains the same model.
    again = scoresde.names.load_config(tmp_path / "config.toml")
    assert again == checkpoint.config


def test_the_same_call_is_free_and_more_steps_go_on(x, tmp_path):
    config = {**TINY, "train": {"warmup": 1}}  # a run of over 200 steps has 100 in any case
    first = scoresde.fit(x, tmp_path, steps=2, config=config)
    assert scoresde.fit(x, tmp_path, steps=2, config=config).sha256 == first.sha256
    assert scoresde.fit(x, tmp_path, steps=4, config=config).metadata["steps_done"] == 4


def test_conditions_and_levels_are_those_of_the_array(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, size=(12, 1, 8, 8), dtype=np.uint8)
    net = {"net": {"channels": 8, "multipliers": [1], "attention": []}}
    checkpoint = scoresde.fit(images, tmp_path, steps=1, y=np.arange(12) % 3, config=net)
    assert (checkpoint.data.levels, checkpoint.data.classes) == (256, 3)
    assert checkpoint.model.classes == 3


@pytest.mark.parametrize(("side", "sides"), [(8, [8, 4]), (28, [28, 14, 7]), (32, [32, 16, 8, 4])])
def test_a_unet_has_levels_down_to_four_pixels(side, sides):
    spec = scoresde.DataSpec((3, side, side), -1.0, 1.0, 256)
    data = scoresde.data.Dataset("x", torch.zeros(5, 3, side, side, dtype=torch.uint8), None, spec)
    net = default_tables(data, scoresde.data.DataSource("x"), 10)["net"]
    assert len(net["multipliers"]) == len(sides)
    assert set(net["attention"]) <= set(sides)


KINDS = {
    "series": ((2, 24), {"channels": 8, "multipliers": [1, 1], "attention": [12]}),
    "volume": ((1, 4, 4, 4), {"channels": 8, "multipliers": [1], "attention": []}),
    "vector": ((5,), {"width": 8, "depth": 1}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_data_has_its_network(kind, tmp_path):
    shape, net = KINDS[kind]
    x = 100 + 20 * np.random.default_rng(0).normal(size=(12, *shape))
    checkpoint = scoresde.fit(x, tmp_path, steps=1, config={"net": net})
    assert checkpoint.data.kind == kind
    out = scoresde.sample(checkpoint.model, n=4, nfe=3)
    assert out.x.shape == (4, *shape)
    assert abs(float(out.scaled.std()) - 1) < 0.5  # a network that knows nothing
    assert float((out.x - 100).abs().max()) < 150  # in the units of the data


def test_lists_of_arrays_are_sets(tmp_path):
    rng = np.random.default_rng(0)
    sets = [rng.normal(size=(n, 2)) for n in (3, 5, 4, 3)]
    net = {"width": 8, "depth": 1, "heads": 1}
    checkpoint = scoresde.fit(sets, tmp_path, steps=1, config={"net": net})
    assert (checkpoint.data.kind, checkpoint.data.sizes) == ("set", (3, 5))
    drawn = scoresde.sample(checkpoint.model, n=6, nfe=3, seed=0).sets
    assert {len(one) for one in drawn} <= {3, 4, 5}


def test_other_data_or_settings_are_refused_and_nothing_is_lost(x, tmp_path):
    scoresde.fit(x, tmp_path, steps=2, config=TINY)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="holds other data than these"):
        scoresde.fit(x + 1, tmp_path, steps=2, config=TINY)
    with pytest.raises(CheckpointError, match=r"net.width = 8, not 16"):
        scoresde.fit(x, tmp_path, steps=2, config={"net": {**TINY["net"], "width": 16}})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    scoresde.fit(x + 1, tmp_path, steps=2, config=TINY, overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"config": {"nett": {}}}, ConfigError, "nett"),
        ({"config": {"net": 3}}, ConfigError, "net must be a dict of keys, got 3"),
        ({"config": [1]}, TypeError, "config must be a dict of tables, got list"),
        ({"config": {"train": {"steps": 3}}}, ConfigError, "by the argument steps"),
        ({"config": {"train": {"bach": 3}}}, ConfigError, "bach"),
        ({"y": [0, 1]}, ValueError, "20"),
        ({"y": [None] * 20}, TypeError, "y must be an array or tensor of numbers"),
    ],
)
def test_bad_arguments_are_named(x, tmp_path, arguments, error, words):
    with pytest.raises(error, match=words):
        scoresde.fit(x, tmp_path, **({"steps": 1, "config": TINY} | arguments))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_must_be_finite(x, tmp_path, bad):
    x[3, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        scoresde.fit(x, tmp_path, steps=1)


def test_toml_reads_what_was_written():
    tables = {"a": {"b": 1e-5, "c": 'it\'s "so"\n', "d": [1, 2.5], "e": True}, "f": {"g": -3}}
    text = _toml(tables)
    assert json.dumps(tomllib.loads(text)) == json.dumps(tables)
