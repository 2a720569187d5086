"""Every command on a model of latents: it works on decoded data, or refuses in one line."""

import json

import numpy as np
import pytest
import torch

from scoresde import LatentDecoder, load, sample
from scoresde.autoencoder import convolutional_autoencoder
from scoresde.checkpoint import save_checkpoint
from scoresde.data import DataSource, load_dataset
from scoresde.names.autoencoders import save_autoencoder
from scoresde.names.config import Config
from scoresde.names.latents import latent_spec_for
from scoresde.names.saving import content_of

LABELLED = {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A latent model of the digits with random weights, as a training would store it."""
    folder = tmp_path_factory.mktemp("latent-model")
    data = load_dataset(DataSource("digits"))
    torch.manual_seed(0)
    made = convolutional_autoencoder(data.spec, 2, channels=(8, 8), groups=4)
    made.fit_scale([data.x[:200]])
    values = {
        "data": {"name": "digits"},
        "latent": {"autoencoder": "autoencoder.safetensors"},
        "sde": {"kind": "vp"},
        "net": LABELLED | {"classes": 10},
        "train": {"steps": 10, "batch": 8, "warmup": 1, "label_dropout": 0.1},
    }
    config = Config.from_dict(values)
    spec = latent_spec_for(made, data.spec)
    model = config.build_model(spec).decoded_by(LatentDecoder(made, data.spec))
    for weight in model.net.parameters():
        if not weight.any():  # zero-initialised, and the network would be zero
            torch.nn.init.normal_(weight, std=0.1)
    tensors, about = content_of(model, spec)
    about |= {"trained": True, "config": config.to_dict()}
    path = folder / "latent.safetensors"
    save_checkpoint(path, tensors, about)
    save_autoencoder(folder / "autoencoder.safetensors", made)
    return path


def summary(out):
    return json.loads((out / "summary.json").read_text())


def test_sample_writes_decoded_data_with_their_latents(scoresde, checkpoint, tmp_path):
    """The decoder is not counted; guidance counts as for any model; the file is read as data."""
    out = tmp_path / "out"
    done = scoresde("sample", "--checkpoint", checkpoint, "--n", 4, "--nfe", 4, "--out", out)
    assert done.status == 0, done.err
    assert "x decoded from latents of 2×4×4; NFE count the score network alone" in done.out
    found, model = np.load(out / "samples.npz"), load(checkpoint).model
    latents = torch.from_numpy(found["latents"])
    assert latents.shape == (4, 2, 4, 4)
    torch.testing.assert_close(torch.from_numpy(found["x"]), model.decoder(latents))
    own = sample(model, nfe=4, y=torch.from_numpy(found["labels"]))
    torch.testing.assert_close(own.scaled, latents)
    assert found["levels"].shape == (4, 1, 8, 8)
    assert (summary(out)["nfe"], summary(out)["latent_shape"]) == (4, [2, 4, 4])
    assert load_dataset(DataSource(out / "samples.npz")).spec.shape == (1, 8, 8)
    guided = scoresde(
        *("sample", "--checkpoint", checkpoint, "--n", 2, "--nfe", 4, "--guidance", 2),
        *("--out", tmp_path / "guided"),
    )
    assert guided.status == 0, guided.err
    assert summary(tmp_path / "guided")["nfe"] == 4


@pytest.mark.slow
def test_likelihood_is_the_bound_through_the_autoencoder(scoresde, checkpoint, tmp_path):
    out = tmp_path / "out"
    done = scoresde(
        *("likelihood", "--checkpoint", checkpoint, "--n", 2, "--split", "train", "--draws", 2),
        *("--steps", 4, "--nodes", 4, "--trace", "hutchinson", "--measured", 0, "--budget"),
        *("--out", out),
    )
    assert done.status == 0, done.err
    assert "bits/dim   bound through the autoencoder (pf-ode/autoencoder)\n" in done.out
    assert "draws of the latents" in done.out
    found = summary(out)
    assert (found["bound"], found["unit"]) == ("bound through the autoencoder", "bits/dim")
    assert (found["dims"], found["protocol"]) == (64, "pf-ode/autoencoder")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("latent", "--checkpoint"),
            "is a model of latents of shape (2, 4, 4), and scoresde latent",
        ),
        (("doctor",), "is a model of latents of shape (2, 4, 4), and scoresde doctor is for"),
        (("likelihood", "--protocol", "vlb-continuous", "--checkpoint"), "has only pf-ode/autoenc"),
    ],
)
def test_commands_for_models_of_the_data_refuse(scoresde, checkpoint, tmp_path, words, message):
    out = () if words == ("doctor",) else ("--out", tmp_path / "out")
    done = scoresde(*words, checkpoint, *out)
    assert done.status == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_protocol_than_that_of_the_model_is_refused(scoresde, tiny_checkpoint, tmp_path):
    words = ("--protocol", "pf-ode/autoencoder", "--out", tmp_path / "out")
    done = scoresde("likelihood", "--checkpoint", tiny_checkpoint, *words)
    assert done.status == 2
    assert "is no model of latents, which alone has pf-ode/autoencoder" in done.err


def test_inspect_tells_latents_and_data(scoresde, checkpoint):
    done = scoresde("inspect", "--checkpoint", checkpoint)
    assert "data      latents of digits, 2×4×4, continuous" in done.out
    assert "decoded   to digits, 1×8×8, 17 levels" in done.out
    assert "convolutional autoencoder of" in done.out


def test_an_autoencoder_is_no_score_model(scoresde, checkpoint, tmp_path):
    file = checkpoint.parent / "autoencoder.safetensors"
    done = scoresde("sample", "--checkpoint", file, "--out", tmp_path / "out")
    assert done.status == 2
    assert "is an autoencoder" in done.err


@pytest.mark.slow
def test_bench_compares_decoded_data(scoresde, checkpoint, tmp_path):
    """All metrics are of decoded data, the exact solution as well; NFE are of the network."""
    out = tmp_path / "out"
    done = scoresde(
        *("bench", "--checkpoint", checkpoint, "--samplers", "ddim", "--nfe", 5, "--n", 8),
        *("--reference-tolerance", 1e-2, "--metrics", "sliced_w2", "--likelihood", 2, "--out", out),
    )
    assert done.status == 0, done.err
    assert "Samples are latents of shape (2, 4, 4) that an autoencoder decodes" in done.out
    found = json.loads((out / "results.json").read_text())
    assert found["settings"]["data"]["shape"] == [1, 8, 8]
    assert all(cell["nfe"] == 5 for cell in found["cells"])
    with np.load(out / "reference.npz") as reference:
        exact = reference["x"]
    assert exact.shape == (8, 1, 8, 8)
    page = (out / "report.html").read_text()
    assert "bound through the autoencoder on the negative log-likelihood" in page
    assert "NFE count the score network" in page


@pytest.mark.slow
def test_check_and_verify_work_in_latent_space(scoresde, checkpoint, tmp_path):
    done = scoresde("check", checkpoint)
    assert "UNet in latent space: " in done.out.splitlines()[-1]
    assert "(4, 2, 4, 4)" in done.out
    done = scoresde("verify", "--checkpoint", checkpoint, "--samplers", "ddim")
    assert "on a network of latents" in done.out, done.err
