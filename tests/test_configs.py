"""Every shipped config: it parses, it builds at full width, and it trains at reduced width."""

import json
import tomllib

import numpy as np
import pytest
import torch

from scoresde.autoencoder import convolutional_autoencoder
from scoresde.data import Dataset, DataSource, DataSpec, load_dataset
from scoresde.data.images import IMAGE_SETS
from scoresde.names.autoencoders import save_autoencoder
from scoresde.names.config import load_config
from scoresde.shipped import locate, shipped
from scoresde.tasks.train import run as run_module
from scoresde.tasks.train.prepare import prepare_run

# Data for what a config measures on them, such as sigma_max = "pairwise".
PAIR = Dataset("pair", torch.tensor([[0, 0], [3, 4]]), None, DataSpec((2,), 2, 22, levels=10))
# Shapes of data that are not there: those of the folders and files that the configs name.
SHAPES = {
    **{name: known.shape for name, known in IMAGE_SETS.items()},
    **{
        "celeba64": (3, 64, 64),
        "church64": (3, 64, 64),
        "images": (3, 32, 32),
        "x.npy": (6,),
        "rows.csv": (6,),
    },
    **{"digits": (1, 8, 8), "moons": (2,)},
}
LATENTS = {"fashion_mnist_latent": (4, 7, 7)}  # shapes of the latents that models are trained on
# For each kind of network, what makes it small.
NARROW = {
    "unet": {"channels": 8},
    "ddpm_unet": {"channels": 4},
    "minimal_unet": {"channels": 8},
    "dense_unet": {"widths": [16, 8]},
    "mlp": {"width": 8},
    "unet_classifier": {"channels": 8},
    "convolutional": {"channels": [8, 8]},
}
DRAWING = {"draw_samples", "draw_losses", "draw_accuracy", "draw_parts", "draw_reconstructions"}
every_config = pytest.mark.parametrize("name", shipped("configs"))


def shape_of(data):
    """The shape of one datum of a table [data]."""
    shape = SHAPES[data["name"]]
    return (shape[0], data["size"], data["size"]) if "size" in data else shape


def values_of(name):
    return tomllib.loads(locate("configs", name).read_text(encoding="utf-8"))


@every_config
def test_it_builds_at_full_width(name):
    """Without memory for the weights; a checkpoint's copy of it is equal."""
    config = load_config(name).of_data(PAIR)
    assert type(config).from_dict(config.to_dict()) == config
    with torch.device("meta"):
        classed = config.classifier or config.latent
        classes = config.net.get("classes") if classed else None
        shape = LATENTS.get(name) or shape_of(values_of(name)["data"])
        spec = DataSpec(shape, -1, 1, classes=classes)
        model = config.build_model(spec)
    assert all(parameter.is_meta for parameter in model.parameters())


def toml(values):
    """Tables of plain values as TOML."""
    return "".join(
        f"[{table}]\n" + "".join(f"{key} = {json.dumps(v)}\n" for key, v in keys.items())
        for table, keys in values.items()
    )


@pytest.mark.slow
@every_config
def test_it_trains_at_reduced_width(name, tmp_path, monkeypatch):
    """Two steps on random data of the right shape, with every key of the config but the sizes."""
    for draw in vars(run_module).keys() & DRAWING:  # they cost more than the steps
        monkeypatch.setattr(run_module, draw, lambda *_: None)
    values = values_of(name)
    shape = shape_of(values["data"])
    draw = np.random.default_rng(0)
    x = draw.normal(size=(8, *shape)) if len(shape) == 1 else draw.integers(0, 256, (8, *shape))
    x = x if len(shape) == 1 else x.astype(np.uint8)
    np.save(tmp_path / "x.npy", x)
    values["data"] |= {"name": str(tmp_path / "x.npy")}
    net = values["net" if "net" in values else "autoencoder"]
    if "classes" in net:
        net["classes"] = 2
        np.savez(tmp_path / "x.npz", x=x, y=np.arange(8) % 2)
        values["data"] |= {"name": str(tmp_path / "x.npz")}
    net |= NARROW[net["kind"]]
    if "latent" in values:
        spec = load_dataset(DataSource(values["data"]["name"])).spec
        made = convolutional_autoencoder(spec, channels=(8, 8, 8))
        save_autoencoder(tmp_path / "autoencoder.safetensors", made)
        values["latent"]["autoencoder"] = str(tmp_path / "autoencoder.safetensors")
    values["train"] |= {"steps": 2, "batch": 2, "warmup": 1, "cooldown": 1}
    if values["train"].get("validation"):
        values["train"]["validation"] = 0.25  # of 8 data
    (tmp_path / "config.toml").write_text(toml(values), encoding="utf-8")
    run = prepare_run(tmp_path / "config.toml", tmp_path / "run")
    assert [progress.step.step for progress in run.steps()] == [1, 2]
    assert run.checkpoint.exists()
