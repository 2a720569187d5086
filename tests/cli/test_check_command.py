"""`scoresde check`: models by name, file and place, statuses, and what it prints."""

import json
import sys

import pytest

from scoresde.verification.laws import practice

MODELS = """
import torch
from torch import nn
from scoresde import VP, DataSpec, FunctionScore, wrap

def right(x, t):
    variance = 1 - 0.75 * torch.exp(2 * VP().log_alpha(t))  # of data N(0, 0.5²)
    sigma = VP().sigma(t)
    factor = (sigma / variance).to(x)
    return (factor.reshape(-1, 1) if factor.ndim else factor) * x

def mixing(x, t):
    return right(x, t) + 0.01 * x.mean(0)

def made(scale: float = 1.0):
    return wrap(Scaled(scale), VP(), "eps", label="time", data=DataSpec((3,), -1.0, 1.0))

class Scaled(nn.Module):
    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = scale

    def forward(self, x, t):
        return self.scale * right(x, t)

good, bad, number = FunctionScore(VP(), right), FunctionScore(VP(), mixing), 3
network = Scaled()
"""


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    monkeypatch.setattr(practice, "SECONDS", 0.0)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A module `own_models` in the present folder."""
    (tmp_path / "own_models.py").write_text(MODELS)
    (tmp_path / "broken_models.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_models", raising=False)


def test_a_checkpoint(scoresde, tiny_checkpoint):
    done = scoresde("check", tiny_checkpoint)
    assert done.status == 0, done
    lines = done.out.splitlines()
    assert lines[0].startswith("pass  output")
    assert lines[-1].startswith("NetworkScore of UNet: ")
    assert lines[-1].endswith(", 0 fail")


def test_a_model_of_ones_own(scoresde, place):
    done = scoresde("check", "own_models:good", "--shape", "3", "--json")
    assert done.status == 0, done
    report = json.loads(done.out)
    assert report["passed"] is True
    assert {f["verdict"] for f in report["findings"]} == {"pass", "info"}
    done = scoresde("check", "own_models:made")  # a function that makes it; it knows its data
    assert (done.status, done.out.count("warn  ")) == (0, 0)
    done = scoresde("check", "own_models:made:scale=3")
    assert (done.status, "warn  noise at t = 1" in done.out) == (0, True)


def test_a_law_that_fails(scoresde, place):
    done = scoresde("check", "own_models:bad", "--shape", "3")
    assert done.status == 1
    assert done.err == "error: failed: no batch mates, times per sample\n"
    assert "fail  no batch mates" in done.out


BAD = [
    (["none"], ["model: none: neither a file nor a shipped checkpoint"]),
    (["digits-vp", "--shape", "0"], ["--shape: 0 is not an integer at least 1"]),
    (["digits-vp", "--seed", "-1"], ["--seed: -1"]),
    (["no_such:Model"], ["'no_such:Model'", "there is no module 'no_such'"]),
    (["own_models:Goood"], ["own_models has no 'Goood'", "did you mean"]),
    (["own_models:number"], ["must be a class or a function that makes the model, got int"]),
    (["own_models:network"], ["own_models:network"]),
    (["own_models:good"], ["shape must be given"]),
    (["own_models:good", "--net", "a:B"], ["--net: a:B is for a checkpoint"]),
    (["broken_models:x"], ["importing broken_models raised ZeroDivisionError: division by zero"]),
    (["digits-vp", "--net", "own_models:Scaled"], ["leave out net"]),
    (
        ["digits-vp", "--shape", "1,8,9"],
        ["shape must be (1, 8, 8), that of the model's data, got (1, 8, 9)"],
    ),
]


@pytest.mark.parametrize(("arguments", "parts"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_inputs_are_one_line(scoresde, place, arguments, parts):
    done = scoresde("check", *arguments)
    assert done.status == 2, done
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for part in parts:
        assert part in done.err
