"""Commands on data in the user's own units."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import scoresde as library
from scoresde.data import DataSpec, Log, Standardize
from scoresde.likelihood import Ode
from scoresde.names.config import Config
from scoresde.score.units import in_model_scale

COARSE = {"rtol": 0.05, "atol": 0.05, "t_min": 0.5}
OPTIONS = ("--method", "dopri5", "--rtol", 0.05, "--atol", 0.05, "--t-min", 0.5, "--measured", 0)
MEAN, STD = np.array([-7.0, 1000.0]), np.array([1.5, 250.0])
CHAIN = (Log(columns=(0,)), Standardize(tuple(MEAN.tolist()), tuple(STD.tolist())))

CONFIG = """
[data]
name = "x.npy"
{data}
[sde]
kind = "vp"
[net]
kind = "mlp"
width = 4
depth = 1
[train]
steps = 1
batch = 8
warmup = 0
validation = 0.25
"""


def rows(n=24, seed=0):
    """Data in units, and the same at the model's scale, float64."""
    z = np.random.default_rng(seed).standard_normal((n, 2))
    x = MEAN + STD * z
    x[:, 0] = np.exp(x[:, 0])
    return x, z


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """No figures of the training, which take seconds."""
    for name in ("draw_losses", "draw_samples"):
        monkeypatch.setattr(f"scoresde.tasks.train.run.{name}", lambda *_: None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with x.npy."""
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", rows()[0].astype(np.float32))
    return tmp_path


@pytest.fixture
def checkpoint(folder):
    """A small untrained model of the data in x.npy."""
    net = {"kind": "mlp", "width": 4, "depth": 1}
    values = {"data": {"name": "x.npy"}, "sde": {"kind": "vp"}, "net": net}
    values["train"] = {"steps": 1, "batch": 1}
    spec = DataSpec((2,), -4, 4, transform=CHAIN, feature_names=("mass", "flux"))
    model = Config.from_dict(values).build_model(spec)
    library.save(folder / "m.safetensors", model, spec)
    return folder / "m.safetensors"


def test_likelihood_is_that_of_the_change_of_variables(scoresde, checkpoint):
    x, z = rows(6, seed=1)
    np.save("test.npy", x.astype(np.float32))
    done = scoresde(
        *("likelihood", "--checkpoint", checkpoint, "--data", "test.npy", "--n", 6),
        *("--out", "out", *OPTIONS),
    )
    assert done.status == 0, done.err
    with np.load("out/per_image.npz") as file:
        found, order = file["log_prob"], file["row"]
    model = library.load(checkpoint).model
    points = torch.from_numpy(z[order]).float()
    inside = library.log_likelihood(in_model_scale(model), points, Ode(**COARSE), seed=0).log_prob
    exact = inside.numpy() - np.log(x[order, 0]) - np.log(STD).sum()
    # float32 data of 1e3 with a deviation of 250 are known to 1e-6 of it, in a steep log p
    assert np.allclose(found, exact, atol=1e-4)
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["log_prob_nats"] == pytest.approx(exact.mean(), abs=1e-4)
    assert summary["log_prob_nats_model_scale"] == pytest.approx(inside.mean().item(), abs=1e-4)
    assert summary["mean"] == pytest.approx(-exact.mean() / 2, abs=1e-4)
    first, second = done.out.splitlines()[:2]
    assert re.match(r"log p = -?[\d.]+ ± \S+ nats per datum in the units of test.npy \(", first)
    assert re.match(r"log p = -?[\d.]+ nats per datum in the model's scale", second)
    manifest = json.loads(Path("out/scoresde.json").read_text())
    assert "training data" not in json.dumps(manifest)  # the scored file is none


def test_samples_are_written_in_units_and_as_a_table(scoresde, checkpoint):
    done = scoresde(
        *("sample", "--checkpoint", checkpoint, "--n", 4, "--nfe", 3, "--out", "out"),
    )
    assert done.status == 0, done.err
    assert "x in the units of the training data" in done.out
    with np.load("out/samples.npz") as file:
        x, z = file["x"], file["scaled"].astype(np.float64)
    expected = MEAN + STD * z
    expected[:, 0] = np.exp(expected[:, 0])
    assert np.allclose(x, expected, rtol=1e-6)  # one rounding to float32
    lines = Path("out/samples.csv").read_text().splitlines()
    assert lines[0] == "mass,flux"
    assert np.allclose(np.genfromtxt(lines[1:], delimiter=","), x)
    again = library.data.load_dataset("out/samples.npz")
    assert np.array_equal(again.x.numpy(), x)
    shown = scoresde("inspect", "--checkpoint", checkpoint).out
    assert "to the model's scale by log of mass; standardize (mean -7, 1000; std 1.5, 250)" in shown


def train(scoresde, data="", *options):
    Path("c.toml").write_text(CONFIG.format(data=data))
    return scoresde("train", "--config", "c.toml", "--out", "run", *options)


def test_training_standardizes_a_file_by_the_rows_that_it_trains_on(scoresde, folder):
    assert train(scoresde).status == 0
    spec = library.load("run/checkpoint.safetensors").data
    x = np.load("x.npy").astype(np.float64)
    (chain,) = spec.transform
    assert np.allclose(chain.mean, x.mean(0), rtol=0.5)
    assert not np.allclose(chain.mean, x.mean(0), rtol=1e-3)  # a quarter is held out
    again = train(scoresde, "", "--set", "train.steps=2")
    assert again.status == 0, again.err
    assert library.load("run/checkpoint.safetensors").data == spec


def test_a_run_without_a_transform_continues_without_one(scoresde, folder):
    np.save("x.npy", rows()[1].astype(np.float32))
    assert train(scoresde, 'transform = "none"').status == 0
    assert library.load("run/checkpoint.safetensors").data.transform is None
    other = train(scoresde, "", "--set", "train.steps=2")
    assert other.status == 2
    assert "data.transform = none" in other.err
    assert train(scoresde, 'transform = "none"', "--set", "train.steps=2").status == 0


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ('transform = "standardise"', "data.transform: 'standardise' is unknown"),
        ("transform = 3", "data.transform must be text or a list of texts, got 3"),
        ('transform = ["log:columns=9"]', "data.transform: x.npy: transform log: the data have no"),
        ('transform = "logit"', r"feature 1 must be between 0.0 and 1.0.*row 0"),
        ('transform = "log"\nlow = 0.0\nhigh = 1.0', "must be absent or 'none' together with"),
        ('transform = "standardize"\nlevels = 9', "together with data.levels"),
    ],
)
def test_wrong_transforms_end_with_one_line(scoresde, folder, data, message):
    done = train(scoresde, data)
    assert done.status == 2
    assert re.search(message, done.err)
    assert done.err.count("\n") == 1
    assert not (folder / "run").exists()


def test_a_constant_column_is_refused_by_name(scoresde, folder):
    x = rows()[0].astype(np.float32)
    x[:, 1] = 5
    np.save("x.npy", x)
    done = train(scoresde)
    assert done.status == 2
    assert "feature 1 is constant, 5 in every training row" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.slow
def test_named_densities_keep_their_scale(scoresde, folder):
    content = CONFIG.format(data="").replace("x.npy", "moons")
    (folder / "c.toml").write_text(content)
    assert scoresde("train", "--config", "c.toml", "--out", "run").status == 0
    assert library.load("run/checkpoint.safetensors").data.transform is None
