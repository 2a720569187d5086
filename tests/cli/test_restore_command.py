"""`scoresde restore`: samples are those of the library, files are read, mistakes are refused."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.inverse import DDRM, Mask, Measured, PiGDM, TwistedSMC
from scoresde.noise import SampleNoise
from scoresde.samplers import DDIM
from scoresde.samplers import sample as draw
from scoresde.tasks.request import StoredModel
from scoresde.tasks.restore_input import Values

MASK = "mask:box=4x4"


@pytest.fixture(autouse=True)
def _no_pictures(request, monkeypatch):
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("scoresde.tasks.restored.save_restoration", lambda *_: None)


@pytest.fixture
def pictures():
    """Asks for the picture to be drawn."""


@pytest.fixture
def restore(scoresde, latest, tiny_checkpoint, tmp_path):
    """restore("--n", 4): run the command; return its folder and the output."""

    def call(*options, out="out"):
        usual = ("--checkpoint", tiny_checkpoint, "--operator", MASK, "--n", 2, "--samples", 3)
        usual = usual[:4] + usual[6:] if {"--image", "--measurement"} & {*options} else usual
        done = scoresde("restore", *latest(*usual, "--nfe", 6, "--out", tmp_path / out, *options))
        assert done.status == 0, done.err
        return tmp_path / out, done

    return call


def arrays(folder):
    with np.load(folder / "restored.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def assert_near(found, wanted):
    """Equal but for rounding: in six steps an untrained network enlarges that of float32."""
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(wanted)


def again(folder, checkpoint, wrapped, sampler):
    """Values of the same samples by the library, from the measurement in the folder."""
    stored, found = StoredModel.read(checkpoint), arrays(folder)
    values, keep = Values(stored.spec), torch.from_numpy(found["keep"])
    operator = Mask(keep)
    measured = torch.from_numpy(found["measurement"]).double()
    y = values.measurement_to_model(measured, operator).float().repeat_interleave(3, 0)
    model = wrapped(stored.build(), operator, 0.05 * values.factor)
    noise = SampleNoise(0, range(6))
    facts = summary(folder)
    from scoresde.samplers.choice import choose

    ts = choose(model, sampler, None, 6).ts
    out = draw(model, sampler, ts, (6, *stored.spec.shape), noise=noise, y=y)
    assert (out.nfe, len(ts) - 1) == (facts["nfe"], facts["steps"])
    return values.of(out.x).reshape(found["samples"].shape)


def test_samples_are_those_of_the_guided_model_by_ancestral_steps(restore, tiny_checkpoint):
    out, done = restore()
    half = lambda model, operator, noise: PiGDM(model, operator, noise, 0.25)  # noqa: E731
    wanted = again(out, tiny_checkpoint, half, DDIM(eta=1.0))
    found = arrays(out)
    assert_near(found["samples"], wanted)
    assert_near(found["mean"], found["samples"].mean(1))
    assert_near(found["std"], found["samples"].std(1, ddof=1))
    facts = summary(out)
    assert facts["nfe"] == facts["nfe_derivative"] == 6
    assert facts["method"] == "pigdm:data_var=0.25"
    assert "central intervals" in done.out
    noise = (found["measurement"] - found["truth"][:, found["keep"]]) / 0.05
    # 96 numbers: noise, and the place in cells of 1/17. Three standard errors of the variance.
    assert abs(noise.var() - 1 - (1 / 17 / 0.05) ** 2 / 12) < 3 * np.sqrt(2 / 96)


@pytest.mark.slow  # two more runs
def test_samplers_of_measured_models(restore, tiny_checkpoint):
    out, _ = restore("--method", "ddrm")
    wanted = again(out, tiny_checkpoint, Measured, DDRM())
    assert_near(arrays(out)["samples"], wanted)
    out, done = restore("--method", "smc:particles=2", out="smc")
    wanted = again(out, tiny_checkpoint, Measured, TwistedSMC(2, data_var=0.25))
    assert_near(arrays(out)["samples"], wanted)
    assert arrays(out)["effective"].shape == (2, 3)
    assert 1 <= summary(out)["effective_particles"]["mean"] <= 2
    assert "effective" in done.out


@pytest.mark.slow  # four runs
def test_batches_and_a_stopped_run_give_the_same_samples(restore, monkeypatch, scoresde):
    out, _ = restore()
    whole = arrays(out)["samples"]
    one, _ = restore("--batch", 4, out="one")
    assert_near(arrays(one)["samples"], whole)
    monkeypatch.setattr("scoresde.tasks.request.build", None)  # finished results need no network
    assert restore()[1].out
    assert "psnr_of_mean" in summary(restore()[0])["error"]


def test_a_measured_file_gives_the_samples_of_the_image(restore, tmp_path):
    levels = np.random.default_rng(0).integers(0, 17, (2, 1, 8, 8))
    np.save(tmp_path / "image.npy", levels)
    out, _ = restore("--image", tmp_path / "image.npy")
    found = arrays(out)
    np.testing.assert_allclose(found["truth"], levels / 16)
    np.save(tmp_path / "y.npy", found["measurement"])
    broken = np.full((2, 1, 8, 8), 7.0)
    broken[:, found["keep"]] = found["measurement"]
    np.save(tmp_path / "broken.npy", broken)
    for name in ("y.npy", "broken.npy"):
        again, done = restore("--measurement", tmp_path / name, out=name[:-4])
        assert_near(arrays(again)["samples"], found["samples"])
        assert "truth" not in arrays(again)
        assert "error" not in summary(again)
        assert "central" not in done.out


@pytest.mark.slow  # draws three pictures
def test_pictures_are_read_and_drawn(restore, tmp_path, pictures):
    grey = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(np.stack([grey.T] * 3, 2)).save(tmp_path / "b.png")
    images = ["--image", tmp_path / "a.png"]
    out, _ = restore(*images)
    np.testing.assert_array_equal(arrays(out)["truth"][0, 0], np.rint(grey / 255 * 16) / 16)
    with Image.open(out / "restored.png") as picture:
        assert min(picture.size) > 100
    for operator in ("projection:m=9", "downsample"):
        drawn, _ = restore(*images, "--operator", operator, out=operator[:4])
        assert (drawn / "restored.png").exists()
    assert "--image" not in (out / "summary.json").read_text()


@pytest.mark.slow  # three runs
def test_several_files_in_one_command(scoresde, tiny_checkpoint, tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.zeros((8, 8), np.uint8))
    files = [part for name in "ab" for part in ("--image", tmp_path / f"{name}.npy")]
    usual = ["--checkpoint", tiny_checkpoint, "--operator", "blur", "--samples", 1, "--nfe", 3]
    done = scoresde("restore", *usual, *files, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    assert done.out.startswith("2 × 1 samples given blur")
    # What `scoresde sample` writes is read by its levels.
    np.savez(tmp_path / "a.npz", x=np.full((1, 1, 8, 8), -1.0), levels=np.full((1, 1, 8, 8), 8))
    done = scoresde("restore", *usual, "--image", tmp_path / "a.npz", "--out", tmp_path / "npz")
    assert done.status == 0, done.err
    np.testing.assert_allclose(arrays(tmp_path / "npz")["truth"], 0.5)
    np.save(tmp_path / "b.npy", np.ones((8, 8), np.uint8))  # other content under the same name
    done = scoresde("restore", *usual, *files, "--out", tmp_path / "out")
    assert done.status == 2
    assert "--overwrite" in done.err


@pytest.mark.slow  # two runs
def test_a_class_is_that_of_all_data(scoresde, labelled_checkpoint, tmp_path):
    usual = ["--checkpoint", labelled_checkpoint, "--operator", MASK, "--n", 1, "--samples", 2]
    usual += ["--nfe", 3]
    found = []
    for label in (3, 4):
        out = tmp_path / str(label)
        done = scoresde("restore", *usual, "--label", label, "--out", out)
        assert done.status == 0, done.err
        found.append(arrays(out)["samples"])
    assert not np.allclose(*found)


MISTAKES = [
    (["--operator", "mask:box=9x9"], "--operator: mask:box=9x9: box must lie inside 8x8"),
    (["--operator", "mask:file=WIDE"], "keep must", "(3, 9, 9)"),
    (["--noise", 0, "--method", "smc"], "--noise: must be above 0 for smc, got 0"),
    (["--method", "ddrm", "--sampler", "ddim"], "--sampler: ddim, but ddrm is a sampler"),
    (["--image", "WIDE"], "--image: ", "(3, 9, 9)", "(1, 8, 8) is needed"),
]
MORE_MISTAKES = [
    (["--operator", "grey"], "--operator: grey: grey is of data with several channels"),
    (["--operator", "mask:file=none.png"], "--operator: ", "No such file"),
    (["--operator", "masc"], "--operator: operator 'masc' is unknown", "did you mean mask"),
    (["--method", "pgdm"], "--method: method 'pgdm' is unknown", "pigdm"),
    (["--noise", "-1"], "--noise: "),
    (["--noise", 0, "--method", "dps"], "--noise: must be above 0 for dps", "dps:scale=20"),
    (["--method", "smc", "--nfe", 5], "--nfe: 5, but it must be at least"),
    (["--sampler", "dopri5", "--nfe", 5], "--nfe: 5, but it must be None"),
    (["--image", "LARGE"], "--image: pixel values must be", "got 255 to 255"),
    (["--image", "NAN"], "--image: ", "finite"),
    (["--image", "TEXT"], "--image: ", "cannot be decoded"),
    (["--image", "none.png"], "--image: ", "none.png"),
    (["--measurement", "WIDE"], "--measurement: ", "(48,) or (1, 8, 8)"),
    (["--image", "LARGE", "--n", 3], "--n: cannot be given together"),
    (["--data", "none"], "--data: ", "none"),
    (["--n", 5000], "--n: 5000 is more than"),
    (["--label", "3"], "--label: 3 is no class"),
]


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    """bad_files(option): the option with the path of a bad file in place of its name."""
    folder = tmp_path_factory.mktemp("bad")
    names = {"WIDE": "wide.npy", "LARGE": "large.npy", "NAN": "nan.npy", "TEXT": "text.png"}
    np.save(folder / "wide.npy", np.zeros((3, 9, 9)))
    np.save(folder / "large.npy", np.full((8, 8), 255.0))
    np.save(folder / "nan.npy", np.full((8, 8), np.nan))
    (folder / "text.png").write_text("no picture")

    def named(option):
        for name, file in names.items():
            option = str(option).replace(name, str(folder / file))
        return option

    return named


def test_mistakes_are_refused_before_the_network_is_built(
    refused, no_network, tiny_checkpoint, bad_files
):
    usual = ["restore", "--checkpoint", tiny_checkpoint, "--operator", MASK]
    for options, *parts in MISTAKES:
        refused([*usual, *map(bad_files, options)], *parts)


@pytest.mark.slow
def test_more_mistakes_are_refused_before_the_network_is_built(
    refused, no_network, tiny_checkpoint, labelled_checkpoint, points_checkpoint, bad_files
):
    usual = ["restore", "--checkpoint", tiny_checkpoint, "--operator", MASK]
    for options, *parts in MORE_MISTAKES:
        refused([*usual, *map(bad_files, options)], *parts)
    labelled = ["restore", "--checkpoint", labelled_checkpoint, "--operator", MASK]
    refused(labelled, "--label: must be given")
    points = ["restore", "--checkpoint", points_checkpoint, "--operator"]
    refused([*points, "downsample"], "--operator: downsample: shape must have channels")


def test_an_operator_of_the_user_has_no_singular_values(
    refused, no_network, tiny_checkpoint, tmp_path, monkeypatch
):
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "own_operator.py").write_text(
        "class Own:\n    def A(self, x): return 2 * x\n    A_adjoint = A\n"
    )
    monkeypatch.syspath_prepend(folder)
    usual = ["restore", "--checkpoint", tiny_checkpoint, "--operator", "own_operator:Own"]
    refused([*usual, "--method", "ddrm"], "--method: ddrm: ")
    refused([*usual[:-1], "own_operator:None"], "has no 'None'")


@pytest.mark.slow  # every method on a trained network
def test_every_method_runs_with_different_singular_values(restore):
    """On an untrained network DPS diverges."""
    usual = ("--checkpoint", "digits-vp", "--operator", "blur:std=0.6", "--n", 1)
    for i, method in enumerate(["pigdm", "dps", "ddnm", "ddrm", "replacement", "repaint", "smc"]):
        exact = method in ("replacement", "repaint")
        with pytest.warns(UserWarning, match="as exact") if exact else nullcontext():
            out, _ = restore(*usual, "--method", method, "--nfe", 20, out=str(i))
        facts = summary(out)
        assert bool(np.isfinite(arrays(out)["samples"]).all())
        assert facts["nfe"] <= 20
        assert (facts["nfe_derivative"] > 0) == (method in ("pigdm", "dps", "smc"))
    out, _ = restore(*usual, "--sampler", "heun", out="heun")
    assert summary(out)["nfe"] <= 6
