"""Fixtures of the command-line tests: running a command in this process, and small checkpoints."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from scoresde_cli.main import run

from scoresde.data import load_dataset
from scoresde.names.config import Config
from scoresde.sde import cosine_betas
from scoresde.tasks.likelihood.request import ScoreRequest
from scoresde.tasks.train.run import Run
from scoresde.train import Training

TINY_UNET = {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}


@dataclass
class Result:
    """The result of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def scoresde(capsys, monkeypatch):
    """scoresde("sample", "--n", 4): run a command and capture its output.

    `--device auto` is the CPU, also on a machine with a GPU: the tests compare bits.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def call(*arguments):
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        return Result(status, *capsys.readouterr())

    return call


def latest(*arguments):
    """The arguments; a repeated option replaces the earlier one.

    The command refuses an option that is given twice, and a test adds options to common ones.
    """
    parts = []
    for argument in map(str, arguments):
        if argument.startswith("--") or not parts:
            parts = [part for part in parts if part[0] != argument]
            parts.append([])
        parts[-1].append(argument)
    return [argument for part in parts for argument in part]


@pytest.fixture(name="latest")
def latest_fixture():
    """latest("--n", 4, "--n", 8): the arguments with the last of each option."""
    return latest


def write_checkpoint(folder, **tables):
    """A checkpoint of an untrained network with random weights in every layer, as a run saves it.

    Args:
        folder: Folder of the checkpoint.
        tables: Tables of the config, instead of a tiny U-Net on the digits under VP.
    """
    values = {
        "data": {"name": "digits"},
        "sde": {"kind": "vp"},
        "net": TINY_UNET,
        "train": {"steps": 10, "batch": 8, "warmup": 1},
    } | tables
    config = Config.from_dict(values)
    data = load_dataset(config.data)
    if config.net.get("classes") is None:
        data = replace(data, labels=None)
    model = config.build_model(data.spec)
    generator = torch.Generator().manual_seed(0)
    for weight in model.net.parameters():
        if not weight.any():  # zero-initialised, and the network would be zero
            torch.nn.init.normal_(weight, std=0.1, generator=generator)
    metadata = {"config": config.to_dict(), "data": data.spec.to_dict(), "provenance": {"by": "us"}}
    folder.mkdir(exist_ok=True)
    made = Run(folder, Training(model, data, config.loss, config.train), metadata)
    made.save()
    return made.checkpoint


@pytest.fixture(name="write_checkpoint")
def write_checkpoint_fixture():
    """write_checkpoint(folder, data={…}): see the function above."""
    return write_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Digits under VP."""
    return write_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def labelled_checkpoint(tmp_path_factory):
    """Digits with their ten classes."""
    return write_checkpoint(tmp_path_factory.mktemp("labelled"), net=TINY_UNET | {"classes": 10})


@pytest.fixture(scope="session")
def dropped_checkpoint(tmp_path_factory):
    """Digits with their ten classes, which are left out in a tenth of the examples."""
    return write_checkpoint(
        tmp_path_factory.mktemp("dropped"),
        net=TINY_UNET | {"classes": 10},
        train={"steps": 10, "batch": 8, "warmup": 1, "label_dropout": 0.1},
    )


@pytest.fixture(scope="session")
def named_checkpoint(tmp_path_factory):
    """Images of a folder with two classes, which have names."""
    folder = tmp_path_factory.mktemp("named")
    for name in ("fox", "cat"):
        (folder / "images" / name).mkdir(parents=True)
        image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
        image.save(folder / "images" / name / "0.png")
    return write_checkpoint(
        folder / "run",
        data={"name": str(folder / "images")},
        net=TINY_UNET | {"classes": 2},
        train={"steps": 10, "batch": 2, "warmup": 1},
    )


@pytest.fixture(scope="session")
def points_checkpoint(tmp_path_factory):
    """A density in the plane, under VE."""
    return write_checkpoint(
        tmp_path_factory.mktemp("points"),
        data={"name": "mixture3"},
        sde={"kind": "ve"},
        net={"kind": "mlp", "width": 16, "depth": 1},
    )


@pytest.fixture(scope="session")
def snapped_checkpoint(tmp_path_factory):
    """Digits under a table of 50 β, by a network whose labels are rounded."""
    return write_checkpoint(
        tmp_path_factory.mktemp("snapped"),
        sde={"kind": "tabulated", "betas": cosine_betas(50).tolist()},
        preconditioning={"label": "rounded_index"},
        objective={"times": "ladder", "levels": 50},
    )


@pytest.fixture(scope="session")
def wide_checkpoint(tmp_path_factory):
    """Continuous data of 5000 dimensions from a file, wide.npy."""
    folder = tmp_path_factory.mktemp("wide")
    np.save(folder / "wide.npy", np.random.default_rng(0).random((8, 5000)))
    return write_checkpoint(
        folder,
        data={"name": str(folder / "wide.npy")},
        net={"kind": "mlp", "width": 4, "depth": 1},
    )


@pytest.fixture
def refused(scoresde, tmp_path):
    """refused(arguments, *parts): assert that a command is refused with these words."""

    def check(arguments, *parts):
        before = sorted(tmp_path.rglob("*"))
        done = scoresde(*latest(*arguments, "--out", tmp_path / "out"))
        assert done.status == 2, done
        assert done.err.startswith("error: ")
        assert done.err.count("\n") == 1
        assert done.out == ""
        for part in parts:
            assert str(part) in done.err
        assert sorted(tmp_path.rglob("*")) == before

    return check


@pytest.fixture
def coarse_likelihood(monkeypatch):
    """A comparison's likelihood of images is that of a coarse path, without measured errors.

    The likelihood and its settings are tested with `scoresde likelihood`.
    """
    coarse = {"steps": 4, "nodes": 8, "trace": "hutchinson:probes=2", "measured": 0}
    coarse_request = partial(ScoreRequest, **coarse, t_min=0.5)
    monkeypatch.setattr("scoresde.comparison.request.ScoreRequest", coarse_request)
    monkeypatch.setattr("scoresde.tasks.likelihood.method.FITTED", 100)


@pytest.fixture
def no_network(monkeypatch):
    """Building a network is an error that no command catches."""

    def build(*_):
        raise AssertionError("a network was built")

    monkeypatch.setattr(Config, "build_model", build)
