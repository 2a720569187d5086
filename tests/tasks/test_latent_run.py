"""Training in latent space: what is encoded, what the checkpoint holds, and what is refused."""

import numpy as np
import pytest
import torch

import scoresde
from scoresde.autoencoder import convolutional_autoencoder, linear_autoencoder
from scoresde.data import DataSource, load_dataset
from scoresde.names.autoencoders import load_autoencoder, save_autoencoder
from scoresde.names.config_source import ConfigSource
from scoresde.noise import SampleNoise
from scoresde.plain import ConfigError
from scoresde.tasks.request import StoredModel
from scoresde.tasks.train.prepare import prepare_run

TABLES = {
    "sde": {"kind": "vp"},
    "net": {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []},
    "train": {"steps": 2, "batch": 4, "warmup": 1, "validation": 0.25, "seed": 5},
}

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with 12 labelled images of 5 levels, and an autoencoder of them."""
    folder = tmp_path_factory.mktemp("latent")
    draw = np.random.default_rng(0)
    k = draw.integers(0, 5, (12, 1, 4, 4)).astype(np.uint8)
    np.savez(folder / "x.npz", x=k, y=np.arange(12) % 3)
    save_ae(folder / "autoencoder.safetensors", load(folder))
    return folder


def load(folder):
    return load_dataset(DataSource(folder / "x.npz", levels=5))


def save_ae(path, data, seed=0):
    torch.manual_seed(seed)
    made = convolutional_autoencoder(data.spec, 2, channels=(8, 8), groups=4)
    made.fit_scale([data.x])
    save_autoencoder(path, made)


def tables(folder, **changes):
    """The tables of a config of latents of these images, with some changed."""
    data = {"name": str(folder / "x.npz"), "levels": 5}
    latent = {"autoencoder": str(folder / "autoencoder.safetensors")}
    made = {"data": data, "latent": latent, **TABLES}
    return {name: table | changes.get(name, {}) for name, table in made.items()}


def prepared(folder, out, **changes):
    return prepare_run(ConfigSource("config", tables=tables(folder, **changes)), out)


def test_latents_are_draws_of_the_posterior_and_known_by_the_images(folder, tmp_path):
    """Row i depends on (train.seed, i) alone. The images identify the run, not their latents."""
    data, made = load(folder), load_autoencoder(folder / "autoencoder.safetensors")
    run = prepared(folder, tmp_path / "draws")
    with torch.no_grad():
        mean, log_std = made.posterior(data.x)
        rows = [SampleNoise(5, [i]).fresh(mean[:1]) for i in range(12)]
        expected = mean + log_std.exp() * torch.cat(rows)
    # Convolutions of another batch size may differ by a rounding.
    torch.testing.assert_close(run.data.x, expected, rtol=0, atol=1e-5)
    assert run.data.spec.shape == (2, 2, 2)
    bare = data.given_for(
        scoresde.data.DataSpec((1,), 0, 1).condition
    )  # the network has no classes
    assert run.data.fingerprint == bare.fingerprint
    of_means = prepared(folder, tmp_path / "mean", latent={"posterior": "mean"})
    torch.testing.assert_close(of_means.data.x, mean, rtol=0, atol=1e-5)


def test_the_checkpoint_decodes_without_the_autoencoders_file(folder, tmp_path):
    net = {"classes": 3}
    run = prepared(folder, tmp_path / "run", net=net)
    for _ in run.steps():
        pass
    made = load_autoencoder(folder / "autoencoder.safetensors")
    for file in ("checkpoint.safetensors", "best.safetensors"):
        checkpoint = scoresde.load(tmp_path / "run" / file)
        model, y = checkpoint.model, torch.tensor([0, 1, 2])
        out = scoresde.sample(model, y=y, nfe=2)
        assert torch.equal(out.x, made.decode(out.scaled))
        assert model.decoder.spec.levels == 5
        assert model.decoder.spec.classes == checkpoint.data.classes == 3
    scoresde.save(tmp_path / "again.safetensors", model)
    again = scoresde.load(tmp_path / "again.safetensors").model
    assert torch.equal(scoresde.sample(again, y=y, nfe=2).x, out.x)
    given = StoredModel.read(tmp_path / "run" / file)
    assert given.of_latents
    assert given.spec.shape == (2, 2, 2)
    assert given.decoded_spec.shape == (1, 4, 4)
    held = given.held_out_rows(load(folder))  # which asks whether these are the images
    assert len(held) == 3
    assert prepared(folder, tmp_path / "run", net=net).done == 2
    save_ae(folder / "other.safetensors", load(folder), seed=1)
    other = {"autoencoder": str(folder / "other.safetensors")}
    with pytest.raises(ValueError, match="another autoencoder than latent.autoencoder names now"):
        prepared(folder, tmp_path / "run", net=net, latent=other)


def refused(folder, tmp_path, pattern, **changes):
    with pytest.raises(ConfigError, match=pattern) as error:
        prepared(folder, tmp_path / "run", **changes)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_what_does_not_fit_is_refused_in_one_line(folder, tmp_path):
    of_vectors = linear_autoencoder(scoresde.DataSpec((3,), -1, 1), 2)
    save_autoencoder(tmp_path / "vectors.safetensors", of_vectors)
    latent = {"autoencoder": str(tmp_path / "vectors.safetensors")}
    pattern = r"latent.autoencoder: .*vectors.* is for data of shape \(3,\), and .* \(1, 4, 4\)"
    refused(folder, tmp_path, pattern, latent=latent)
    pattern = "is for data of levels 5, and .* has levels 6"
    refused(folder, tmp_path, pattern, data={"levels": 6})
    pattern = "is for data from -1 to 1, and .* is from 0 to 1"
    refused(folder, tmp_path, pattern, data={"low": 0.0})
    refused(
        folder,
        tmp_path,
        "none.safetensors: no such file",
        latent={"autoencoder": "none.safetensors"},
    )
    refused(folder, tmp_path, "of a model of noise levels", latent={"autoencoder": "digits-vp"})
    (tmp_path / "text.safetensors").write_text("hello")
    latent = {"autoencoder": str(tmp_path / "text.safetensors")}
    refused(folder, tmp_path, "latent.autoencoder: .*text.safetensors", latent=latent)
    refused(folder, tmp_path, "posterior must be one of", latent={"posterior": "mode"})
    refused(folder, tmp_path, "train.flip must be false", train={"flip": True})
    with pytest.raises(scoresde.checkpoint.CheckpointError, match="is an autoencoder"):
        scoresde.load(folder / "autoencoder.safetensors")
