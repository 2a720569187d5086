"""`scoresde latent`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import scoresde as library
from scoresde.likelihood import (
    ExactTrace,
    Ode,
    dequantize,
    interpolate,
    interpolate_with_log_prob,
    round_trip,
    sample_with_log_prob,
)
from scoresde.noise import SampleNoise

# Coarse and from late on, so that a solve takes some twenty evaluations.
COARSE = {"t_min": 0.5, "rtol": 0.05, "atol": 0.05}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in COARSE.items()]
PICTURES = ["round_trip.png", "interpolation.png", "samples.png"]


@pytest.fixture
def pictures():
    """Asks for the pictures to be drawn."""


@pytest.fixture(autouse=True)
def _few_pictures(request, monkeypatch):
    """Draw no pictures unless a test asks for `pictures`: three take a second."""
    if "pictures" not in request.fixturenames:
        for name in ("round_trip", "interpolation", "sorted_by_value"):
            monkeypatch.setattr(f"scoresde.output.pictures.{name}", lambda path, *_: None)
        monkeypatch.setattr("scoresde.tasks.latent_files.save_restoration", lambda *_: None)


@pytest.fixture
def explore(scoresde, latest, tiny_checkpoint, tmp_path):
    """explore("--n", 4): run the command with a new folder; return its path and the output."""

    def call(*options, checkpoint=tiny_checkpoint, out=tmp_path / "out"):
        few = ("--n", 3, "--steps", 3, "--samples", 2)
        arguments = ("--checkpoint", checkpoint, "--out", out, *OPTIONS, *few, *options)
        return out, scoresde("latent", *latest(*arguments))

    return call


def arrays(folder):
    with np.load(folder / "latents.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file}


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.slow
def test_it_is_the_library(explore, tiny_checkpoint):
    out, done = explore("--n", 5, "--batch", 2, "--seed", 4)
    assert done.status == 0, done.err
    found, checkpoint = arrays(out), library.load(tiny_checkpoint)
    k = library.load_dataset("digits", "test").x[found["rows"]]
    x = dequantize(k, checkpoint.data, SampleNoise(4, range(5)))
    assert torch.equal(found["x"], x)
    there = round_trip(checkpoint.model, x, Ode(**COARSE), batch=2)
    for name in ("latent", "decoded", "error"):
        assert torch.equal(found[name], getattr(there, name))
    paths = interpolate(checkpoint.model, x[[0, 2]], x[[1, 3]], 3, Ode(**COARSE), batch=2)
    for name in ("x", "latent", "error"):
        assert torch.equal(found[f"path_{name}"], getattr(paths, name))
    assert summary(out)["round_trip"]["error"] == float(there.error.max())
    assert summary(out)["paths"]["error"] == float(paths.error.max())


def test_samples_have_their_log_density(explore, tiny_checkpoint):
    out, done = explore("--samples", 4, "--probes", 3, "--seed", 2)
    assert done.status == 0, done.err
    found, checkpoint = arrays(out), library.load(tiny_checkpoint)
    method = Ode(trace="hutchinson:probes=3", **COARSE)
    drawn = sample_with_log_prob(checkpoint.model, (4, 1, 8, 8), method, seed=2, batch=64)
    for name in ("x", "log_prob", "std_error"):
        assert torch.equal(found[f"sample_{name}"], getattr(drawn, name))
    assert torch.equal(found["sample_x_init"], drawn.latent)
    bits = drawn.bits_per_dim(checkpoint.data)
    assert summary(out)["samples"]["mean"] == pytest.approx(float(bits.mean()), rel=1e-12)
    assert f"mean {float(bits.mean()):.4f} ± " in done.out


def test_density_along_paths_and_another_class(explore, labelled_checkpoint):
    """Both are those of the library; without them the results are as before."""
    more = ("--n", 2, "--samples", 0, "--path-density", "--label", 1, "--probes", 3)
    out, done = explore(*more, checkpoint=labelled_checkpoint)
    assert done.status == 0, done.err
    found, checkpoint = arrays(out), library.load(labelled_checkpoint)
    x, y = found["x"], library.load_dataset("digits", "test").labels[found["rows"]]
    method = Ode(trace="hutchinson:probes=3", **COARSE)
    paths = interpolate_with_log_prob(checkpoint.model, x[:1], x[1:], 3, method, seed=0, y=y[:1])
    for name in ("x", "log_prob", "std_error"):
        assert torch.equal(found[f"path_{name}"], getattr(paths, name))
    bits = paths.bits_per_dim(checkpoint.data)
    assert summary(out)["paths"]["in_middle"] == pytest.approx(float(bits[0, 1]), rel=1e-12)
    error = float(paths.std_error.square().mean().sqrt()) / (64 * np.log(2))
    assert f"{float(bits[0, 1]):.3f} in the middle (bits/dim; ± {error:.3f} each;" in done.out
    other = library.translate(checkpoint.model, x, method, y=y, to=torch.tensor([1]))
    assert torch.equal(found["translated"], other.translated)
    assert "class 1: translated" in done.out
    manifest = json.loads((out / "scoresde.json").read_text())["settings"]
    assert (manifest["path_density"], manifest["label"]) == (True, "1")


@pytest.mark.usefixtures("pictures")
@pytest.mark.slow
def test_pictures_and_words(explore):
    out, done = explore()
    manifest = json.loads((out / "scoresde.json").read_text())["settings"]
    assert not {"path_density", "label"} & set(manifest)  # as of earlier versions
    names = ["latents.npz", *PICTURES]
    assert summary(out)["files"] == names
    assert sorted(p.name for p in out.iterdir()) == sorted(
        [*names, "scoresde.json", "summary.json"]
    )
    for name in PICTURES:
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100
    for part in (
        "round trip: max error ",
        "3 of 297 in digits (test), 64 dimensions, range 2",
        "probability-flow ODE from t = 0.5 to 1 and back, dopri5, rtol 0.05, atol 0.05",
        "1 of 3; largest error at an end",
        *(str(out / name) for name in names),
    ):
        assert part in done.out


def test_points_in_the_plane(explore, points_checkpoint):
    out, done = explore("--n", 6, checkpoint=points_checkpoint)
    assert done.status == 0, done.err
    found, checkpoint = arrays(out), library.load(points_checkpoint)
    # VE: the codes are of the prior's scale in the arrays, and in its units in the summary
    size = float(found["latent"].square().mean().sqrt()) / checkpoint.model.sde.prior_std
    assert summary(out)["round_trip"]["latent_rms"] == pytest.approx(size, rel=1e-6)
    method = Ode(trace=ExactTrace(), **COARSE)
    drawn = sample_with_log_prob(checkpoint.model, (2, 2), method, seed=0, batch=64)
    assert torch.equal(found["sample_log_prob"], drawn.log_prob)
    assert " nats/dim at " in done.out
    assert summary(out)["files"] == ["latents.npz", *PICTURES]


@pytest.mark.slow
def test_labels_go_to_the_network(explore, labelled_checkpoint):
    out, done = explore("--n", 4, checkpoint=labelled_checkpoint)
    assert done.status == 0, done.err
    found, checkpoint = arrays(out), library.load(labelled_checkpoint)
    y = library.load_dataset("digits", "test").labels[found["rows"]]
    assert torch.equal(found["labels"], y)
    there = round_trip(checkpoint.model, found["x"], Ode(**COARSE), y=y, batch=64)
    assert torch.equal(found["decoded"], there.decoded)
    drawn = sample_with_log_prob(
        checkpoint.model,
        (2, 1, 8, 8),
        Ode(trace="hutchinson:probes=2", **COARSE),
        seed=0,
        y=torch.tensor([0, 1]),
        batch=64,
    )
    assert torch.equal(found["sample_x"], drawn.x)


def test_vectors_are_drawn_by_their_first_numbers(explore, wide_checkpoint, tmp_path):
    np.save(tmp_path / "more.npy", np.random.default_rng(1).random((3, 5000)))
    # A relative path is looked for in --data-root first, wherever this option stands.
    data = ("--data", "more.npy", "--data-root", tmp_path, "--samples", 0)
    out, done = explore(*data, checkpoint=wide_checkpoint)
    assert done.status == 0, done.err
    assert summary(out)["files"] == ["latents.npz", *PICTURES[:2]]
    assert summary(out)["samples"] is None
    assert "samples" not in done.out


@pytest.mark.slow
def test_json(explore):
    out, done = explore("--json")
    assert json.loads(done.out) == summary(out)


def test_the_same_request_is_not_computed_again(explore, monkeypatch):
    _, first = explore()
    monkeypatch.setattr("scoresde.tasks.latents._compute", None)
    _, second = explore()
    assert second.out == first.out


def test_out_of_memory_says_what_to_try_and_leaves_nothing(explore, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("scoresde.tasks.latents.interpolate", fail)
    out, done = explore("--batch", 5)
    assert done.status == 1
    assert "batch of 5, each of shape (1, 8, 8); try --batch 2" in done.err
    assert not out.exists()


BAD = [
    (["--rtol", "0"], ["--rtol: 0", "above 0 and below 1"]),
    (["--atol", "nan"], ["--atol: nan", "above 0 and below 1"]),
    (["--rtol", "1e-12"], ["--rtol: 1e-12", "float32", "--dtype float64"]),
    (["--t-min", "0"], ["--t-min: 0", "above 0 and below 1"]),
    (["--n", "1"], ["--n: 1", "at least 2"]),
    (["--n", "298"], ["--n: 298", "297", "digits (test)"]),
    (["--steps", "1"], ["--steps: 1", "at least 2"]),
    (["--steps", "1001"], ["--steps: 1001", "at most 1000", "each is a datum"]),
    (["--samples", "100000000000"], ["--samples: 100000000000 of 64 numbers", "GB of memory"]),
    (["--probes", "10000000000"], ["--probes: 10000000000 of 1024 numbers", "GB of memory"]),
    (["--label", "1"], ["--label: 1 is no class", "it has no classes"]),
    (["--samples", "-1"], ["--samples: -1", "at least 0"]),
    (["--probes", "0"], ["--probes: 0", "at least 1"]),
    (["--batch", "0"], ["--batch: 0", "at least 1"]),
    (["--seed", "-1"], ["--seed: -1", "at least 0"]),
    (["--levels", "256"], ["digits", "17", "256"]),
    (["--data", "mixture3"], ["--data: mixture3", "(2,)", "(1, 8, 8)"]),
    (["--dtype", "bfloat16"], ["--dtype: 'bfloat16'", "float64"]),
    (["--device", "cuda:7"], ["--device: 'cuda:7'", "use cpu"]),
    (["--checkpoint", "none"], ["none", "neither a file nor a shipped checkpoint"]),
]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("options", "parts"), BAD, ids=[" ".join(o) for o, _ in BAD])
def test_bad_inputs(refused, tiny_checkpoint, options, parts):
    refused(["latent", "--checkpoint", tiny_checkpoint, *options], *parts)


@pytest.mark.usefixtures("no_network")
def test_paths_need_memory(refused, tiny_checkpoint, monkeypatch):
    """Of 200 data there are 100 paths, each of 1000 data of 64 numbers, in three arrays."""
    monkeypatch.setattr("scoresde.output.progress.free_bytes", lambda: 10**7)
    few = ("--samples", 0, "--n", 200)
    many = ["latent", "--checkpoint", tiny_checkpoint, *few, "--steps", 1000]
    refused(many, "--n: 200 of 32000 numbers each need 0.0768 GB")


@pytest.mark.usefixtures("no_network")
def test_rounded_labels(refused, snapped_checkpoint):
    refused(["latent", "--checkpoint", snapped_checkpoint], "--checkpoint:", "rounded labels")


@pytest.mark.usefixtures("no_network")
def test_a_folder_of_something_else(scoresde, tiny_checkpoint, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    done = scoresde("latent", "--checkpoint", tiny_checkpoint, "--out", tmp_path)
    assert done.status == 2
    assert f"--out {tmp_path}: holds other files" in done.err
