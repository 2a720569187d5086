"""A run with `sigma_max = "pairwise"`, and what is said of its ladder."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scoresde_cli.main import run

from scoresde.data import Dataset, DataSpec
from scoresde.names.config import load_config
from scoresde.sde import VE
from scoresde.tasks.inspection import describe_checkpoint
from scoresde.tasks.noise_levels import ladder_in_words
from scoresde.train import Training, make_optimizer

pytestmark = pytest.mark.usefixtures("no_pictures")

CONFIG = """
[data]
name = "x.npy"
transform = "none"
[sde]
kind = "ve"
sigma_max = "pairwise"
[net]
kind = "mlp"
width = 4
depth = 1
[objective]
times = "ladder"
levels = {levels}
[train]
steps = {steps}
batch = 4
warmup = 1
"""


def train(folder, levels, steps=1):
    text = CONFIG.format(levels=levels, steps=steps)
    (folder / "c.toml").write_text(text, encoding="utf-8")
    words = ["train", "--config", "c.toml", "--out", f"run{levels}", "--device", "cpu"]
    assert run(words) == 0
    return describe_checkpoint(folder / f"run{levels}" / "checkpoint.safetensors")


def test_the_distance_is_stored_and_the_run_resumes(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.zeros((5, 16), np.float32)
    x[1, 0], x[2, 0] = 2.5, -2.5
    np.save("x.npy", x)
    found = train(tmp_path, 30)
    assert found["config"]["sde"] == {"kind": "ve", "sigma_min": 0.01, "sigma_max": 5.0}
    assert "30 noise levels, σ from 5 to 0.01, neighbours overlap by 0.9" in found["noise_levels"]
    assert found["noise_levels"] in capsys.readouterr().err
    assert train(tmp_path, 30, steps=2)["steps_done"] == 2
    few = ladder_in_words({**found["config"], "objective": {"times": "ladder", "levels": 3}}, 16)
    assert "overlap by 0, less than 0.5; objective.levels = " in few


@pytest.mark.slow
def test_ncsn_learns_one_image():
    """With one image the noise is known exactly: the least loss is 0. It begins near 1."""
    config = load_config("ncsn_digits")
    net = {**config.net, "channels": 8, "dropout": 0.0}
    settings = replace(config.train, steps=200, batch=8, warmup=10, cooldown=100)
    config = replace(config, net=net, train=settings, sde=VE(0.01, 9.0))
    image = torch.linspace(-3, 3, 64).sin().reshape(1, 1, 8, 8)
    data = Dataset("one", image.expand(8, 1, 8, 8), None, DataSpec((1, 8, 8), -1, 1))
    training = Training(config.build_model(data.spec), data, config.objective, settings)
    optimizer = make_optimizer(training.model.net)
    losses = [step.loss for step in training.steps(optimizer)]
    assert sum(losses[-20:]) / 20 < 0.2 < 0.7 < losses[0]
