r"""Checkpoints and a run folder written at commit f5c71d0 (version 0.1.0) load and resume.

They cover each SDE, both networks, each label, and networks with and without classes. `run` is the
folder runs/vp-mlp below. This script wrote them, in an empty folder and with the package of that
commit:

    from dataclasses import replace
    from pathlib import Path

    import numpy as np
    import torch
    from scoresde.names.config import Config, load
    from scoresde.tasks.train.run import Run, export

    MLP = {"kind": "mlp", "width": 4, "depth": 1}
    UNET = {"kind": "unet", "channels": 2, "multipliers": [1, 2], "blocks": 1, "attention": []}
    SEVEN = {"kind": "unet", "channels": 2, "multipliers": [1], "blocks": 1}  # attention at 7
    LADDER = {"kind": "tabulated", "betas": [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]}
    RUNS = {  # name: data, sde, net, preconditioning, objective
        "vp-mlp": ("rings", {"kind": "vp"}, MLP, {}, {}),
        "vp-unet": ("7x7.npy", {"kind": "vp"}, SEVEN, {}, {}),
        "subvp-unet": (
            "digits",
            {"kind": "subvp"},
            UNET | {"attention": [4]},
            {"target": "edm", "label": "edm", "sigma_data": 0.8},
            {"weighting": "edm", "times": "log_normal"},
        ),
        "ve-unet-classes": (
            "digits",
            {"kind": "ve", "sigma_max": 10.0},
            UNET | {"patch": 2, "classes": 10},
            {"target": "score"},
            {"times": "log_snr"},
        ),
        "cosine-mlp": (
            "moons",
            {"kind": "cosine"},
            MLP | {"embedding": "sinusoidal"},
            {"target": "v", "label": "time"},
            {},
        ),
        "tabulated-mlp": ("rings", LADDER, MLP, {"target": "x0", "label": "index"}, {}),
        "tabulated-unet-classes": (
            "digits",
            LADDER,
            UNET | {"classes": 10, "embedding": "sinusoidal", "skip_scale": False},
            {"label": "rounded_index", "scale_input": False},
            {"times": "ladder", "levels": 8},
        ),
    }
    out, work, expected = Path("fixtures"), Path("runs"), {}
    out.mkdir()
    np.save("7x7.npy", (np.arange(20 * 49) ** 2 % 251).reshape(20, 1, 7, 7).astype("u1"))
    for name, (data, sde, net, preconditioning, objective) in RUNS.items():
        values = {"data": {"name": data}, "sde": sde, "net": net, "objective": objective}
        train = {"steps": 6, "batch": 8, "warmup": 1, "learning_rate": 0.1, "ema_decay": 0.5}
        values |= {"preconditioning": preconditioning, "train": train}
        config = Config.from_dict(values)
        images = config.data.load()
        metadata = {"config": config.to_dict(), "data": images.spec.to_dict()}
        model = config.build_model(images.spec)
        if "classes" not in net:
            images = replace(images, labels=None)
        settings = (config.objective, config.train, metadata)
        run = Run(work / name, model, images, *settings, log_every=2)
        for progress in run.steps():
            if progress.step.step == 5:
                break
        export(run.checkpoint, out / f"{name}.safetensors")
        model = load(out / f"{name}.safetensors").model
        if "classes" in net:
            model = model.given(torch.tensor([0, 4, 9]))
        shape = (3, *images.spec.shape)
        x = torch.linspace(-1.5, 1.5, int(np.prod(shape))).reshape(shape)
        for i in (1, 5, 8):
            expected[f"{name} at {i}/8"] = model.eps(x, i / 8).numpy()
    np.savez(out / "eps.npz", **expected)
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import scoresde
from scoresde.checkpoint import CheckpointError, read_checkpoint
from scoresde.data import load_dataset
from scoresde.names.loading import config_of
from scoresde.tasks.train.files import CHECKPOINT, LOG
from scoresde.tasks.train.run import Run
from scoresde.train import Training

FOLDER = Path(__file__).parent / "fixtures" / "f5c71d0"
NAMES = sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def points(shape):
    """The three points at which ε was evaluated."""
    return torch.linspace(-1.5, 1.5, int(np.prod(shape))).reshape(shape)


def test_the_fixtures_cover_every_kind():
    configs = [config_of(read_checkpoint(FOLDER / f"{name}.safetensors"))[0] for name in NAMES]
    sdes = {type(config.sde).__name__ for config in configs}
    assert sdes == {"VP", "SubVP", "VE", "CosineVP", "TabulatedVP"}
    assert {config.net["kind"] for config in configs} == {"mlp", "unet"}
    assert {"classes" in config.net for config in configs} == {True, False}
    labels = {config.preconditioning.label for config in configs}
    assert labels == {"log_sigma", "edm", "time", "index", "rounded_index"}


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_the_same_function(name):
    loaded = scoresde.load(FOLDER / f"{name}.safetensors")
    x = points((3, *loaded.data.shape))
    model = loaded.model
    if "classes" in loaded.config.net:
        model = model.given(torch.tensor([0, 4, 9]))
    with np.load(FOLDER / "eps.npz") as expected:
        for i in (1, 5, 8):
            want = torch.from_numpy(expected[f"{name} at {i}/8"])
            size = float(want.abs().max())
            assert size > 1e-3  # no network of zeros
            # The order of float32 sums differs between processors: some 100 roundings of 6e-8.
            assert torch.allclose(model.eps(x, i / 8), want, rtol=0, atol=1e-5 * size)


def old_run(folder) -> Run:
    """A copy of the old run in a folder, with the same config, not yet resumed."""
    shutil.copytree(FOLDER / "run", folder)
    raw = read_checkpoint(folder / CHECKPOINT)
    config, spec = config_of(raw)
    metadata = {"config": config.to_dict(), "data": spec.to_dict()}
    model = config.build_model(spec)
    training = Training(model, load_dataset(config.data), config.objective, config.train)
    return Run(folder, training, metadata)


def test_an_old_run_resumes_with_one_warning(tmp_path):
    run = old_run(tmp_path / "run")
    with pytest.warns(UserWarning, match="did not record the content of the data") as warned:
        assert run.resume() == 5
    assert len(warned) == 1
    assert "another definition of the noise" in str(warned[0].message)
    assert len(list(run.steps())) == 1
    assert [line[:10] for line in (run.folder / LOG).read_text().splitlines()] == [
        *('{"step": 2', '{"step": 4', '{"step": 6')
    ]
    assert read_checkpoint(run.checkpoint).metadata["steps_done"] == 6


def test_an_old_run_of_another_config_is_refused_in_one_line(tmp_path):
    run = old_run(tmp_path / "run")
    run.metadata["config"]["train"]["learning_rate"] = 0.2
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    with pytest.raises(CheckpointError, match=r"train\.learning_rate = 0\.1, not 0\.2") as error:
        run.resume()
    assert "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
