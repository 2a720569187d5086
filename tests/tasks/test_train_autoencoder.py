"""`scoresde train` of an autoencoder: its log, its checkpoint, its best possible loss."""

import json

import numpy as np
import pytest
import torch

import scoresde
from scoresde.autoencoder import probabilistic_pca
from scoresde.checkpoint import CheckpointError, read_checkpoint
from scoresde.data import DataSpec
from scoresde.names.autoencoders import load_autoencoder
from scoresde.names.config_source import ConfigSource
from scoresde.plain import ConfigError
from scoresde.tasks.inspection import describe_checkpoint
from scoresde.tasks.train import run as run_module
from scoresde.tasks.train.files import Intervals
from scoresde.tasks.train.prepare import prepare_run


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    for name in ("draw_parts", "draw_reconstructions"):  # they cost more than the steps
        monkeypatch.setattr(run_module, name, lambda *_: None)


@pytest.fixture
def source(tmp_path):
    """A config of 400 Gaussian vectors, with changes of its tables."""
    draw = np.random.default_rng(0)
    x = (draw.normal(size=(400, 3)) @ draw.normal(size=(3, 3)) + 1).astype(np.float32)
    np.save(tmp_path / "x.npy", x)

    def make(**changed):
        tables = {
            "data": {"name": str(tmp_path / "x.npy")},
            "autoencoder": {"kind": "linear", "latent_size": 2},
            "train": {"steps": 8, "batch": 16, "warmup": 0, "validation": 0.1},
        }
        for name, table in changed.items():
            tables[name] = tables.get(name, {}) | table
        return ConfigSource("own", tables=tables)

    return make


def trained(source, folder, every=Intervals(log_every=2, validate_every=4)):  # noqa: B008
    run = prepare_run(source, folder, intervals=every)
    for _ in run.steps():
        pass
    return run


def test_the_log_has_both_parts_and_the_checkpoint_a_scale(source, tmp_path):
    run = trained(source(), tmp_path / "run")
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    for row in (*rows, *(row["validation"] for row in rows if "validation" in row)):
        assert row["loss"] == pytest.approx(row["reconstruction"] + row["kl"])
        assert "error_by_t" not in row
    assert rows[-1]["loss"] < rows[0]["loss"]
    for name in ("checkpoint", "best"):
        made = load_autoencoder(run.folder / f"{name}.safetensors")
        z, log_std = made.posterior(run.training.examples.data.x[run.training.examples.rows])
        assert z.mean(0).abs().max() < 1e-5  # rounding
        second = z.square() + (2 * log_std).exp()
        torch.testing.assert_close(second.mean(0), torch.ones(2), atol=1e-5, rtol=0)


def test_a_stopped_run_continues_as_if_it_had_not_been_stopped(source, tmp_path):
    whole = trained(source(), tmp_path / "whole")
    run = prepare_run(source(), tmp_path / "parts")
    steps = run.steps()
    for _ in range(3):
        next(steps)
    steps.close()
    again = trained(source(), tmp_path / "parts")
    first, second = (read_checkpoint(run.checkpoint).tensors for run in (whole, again))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_is_refused_where_a_score_model_is_needed(source, tmp_path):
    run = trained(source(), tmp_path / "run")
    with pytest.raises(CheckpointError, match="is an autoencoder and no score model"):
        scoresde.load(run.checkpoint)
    found = describe_checkpoint(run.checkpoint)
    assert found["latents"]["shape"] == [2]
    assert found["config"]["autoencoder"] == {"kind": "linear", "latent_size": 2}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"autoencoder": {"latent_size": 4}}, "at most as many numbers as the data, 3 of"),
        ({"autoencoder": {"kind": "convolutional"}}, "unknown key 'latent_size'"),
        ({"autoencoder": {"kind": "lin"}}, "autoencoder.kind: 'lin' is unknown; did you mean"),
        ({"autoencoder": {"size": 2}}, "autoencoder: unknown key 'size'"),
        ({"sde": {"kind": "vp"}}, "own: sde must be absent beside autoencoder"),
        ({"loss": {"beta": 0.0}}, "loss: beta must be"),
        ({"train": {"label_dropout": 0.1}}, "label_dropout must be 0 for an autoencoder"),
    ],
)
def test_configs_that_are_refused(source, tmp_path, changed, message):
    with pytest.raises(ConfigError, match=message):
        prepare_run(source(**changed), tmp_path / "run")


def test_bits_of_held_out_data_are_refused(source, tmp_path):
    with pytest.raises(ValueError, match="--validate-bits: must be 0 for an autoencoder"):
        prepare_run(source(), tmp_path / "run", intervals=Intervals(validate_bits=2))


@pytest.mark.slow
def test_training_reaches_the_largest_likelihood(source, tmp_path):
    """The loss of a linear autoencoder cannot be below −log p of probabilistic PCA."""
    settings = {"steps": 600, "batch": 64, "learning_rate": 3e-2, "cooldown": 500}
    run = trained(source(train=settings | {"validation": 0.0}), tmp_path / "run")
    x = run.training.examples.data.x.double()  # standardized, as the run sees them
    best = probabilistic_pca(x, DataSpec((3,), -9.0, 9.0), 2)
    made = load_autoencoder(run.checkpoint).double()

    def loss(each):
        u, log_std = each.raw_posterior(x)
        noise = torch.randn(u.shape, generator=torch.Generator().manual_seed(0)).double()
        return float((each.kl(x) - each.log_conditional(x, u + log_std.exp() * noise)).mean()) / 3

    with torch.no_grad():
        # Rotations of latents change the diagonal posterior, and the weights still move a little.
        assert loss(made) == pytest.approx(loss(best), abs=0.02)
