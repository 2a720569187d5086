"""`scoresde edit`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import scoresde as library


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """A picture takes half a second; it was looked at."""
    monkeypatch.setattr("scoresde.tasks.editing.save_restoration", lambda *_: None)


@pytest.fixture
def edited(scoresde, tmp_path, tiny_checkpoint):
    """edited("--n", 2): run the command in a new folder; return it, the arrays and the output."""

    def call(*options, checkpoint=tiny_checkpoint, out=tmp_path / "out"):
        few = ("--nfe", 4, "--seed", 3)
        done = scoresde("edit", "--checkpoint", checkpoint, "--out", out, *few, *options)
        assert done.status == 0, done.err
        with np.load(out / "edits.npz", allow_pickle=False) as file:
            return out, {name: torch.from_numpy(file[name]) for name in file}, done

    return call


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture
def picture(tmp_path):
    """A file with a picture of a bar, and its pixel values."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:, 3:5] = 255
    Image.fromarray(pixels).save(tmp_path / "bar.png")
    return tmp_path / "bar.png", torch.from_numpy(pixels / 255)[None, None]


def test_it_is_the_library_on_a_picture(edited, picture, tiny_checkpoint):
    file, values = picture
    few = ("--image", file, "--strength", 0.9, "--samples", 2)
    out, arrays, done = edited(*few)
    assert torch.equal(arrays["x"], values)
    assert arrays["edited"].shape == (1, 1, 2, 1, 8, 8)
    checkpoint = library.load(tiny_checkpoint)
    spec = checkpoint.data
    # The pixels are dequantized at places within their cell of 2/17.
    place = np.random.default_rng([3, 0, 0]).random((1, 8, 8))
    x = spec.dequantize((values * 16).long(), torch.from_numpy(place)[None]).float()
    found = library.edit(checkpoint.model, x.repeat(2, 1, 1, 1), 0.9, nfe=4, seed=3)
    wanted = (found.x.double() + 1 - 1 / 17) / (2 * 16 / 17)
    torch.testing.assert_close(arrays["edited"][0, 0], wanted, rtol=0, atol=1e-6)
    assert summary(out)["strengths"][0]["nfe"] == found.nfe
    assert f"{found.nfe} NFE, change" in done.out
    again = edited(*few)
    assert again[2].out == done.out


def test_strength_0_changes_nothing_and_all_strengths_have_one_noise(edited, labelled_checkpoint):
    out, arrays, _ = edited(
        *("--n", 2, "--strength", 0, "--strength", 0.9, "--strength", 1, "--label", 1),
        checkpoint=labelled_checkpoint,
    )
    assert arrays["edited"].shape == (2, 3, 1, 1, 8, 8)
    # Half a level is the dequantization.
    assert float((arrays["edited"][:, 0, 0] - arrays["x"]).abs().max()) < 1 / 16
    rows = summary(out)["strengths"]
    assert [row["nfe"] for row in rows] == sorted(row["nfe"] for row in rows)
    assert rows[0]["nfe"] == 0
    assert rows[0]["change"] < 0.5 / 16


def test_discrete_times_and_stochastic_samplers(edited, snapped_checkpoint):
    """A strength between two times of the ladder is moved to the nearer one."""
    few = ("--n", 1, "--strength", 0.613, "--sampler", "ddim:eta=1")
    out, arrays, _ = edited(*few, checkpoint=snapped_checkpoint)
    assert bool(arrays["edited"].isfinite().all())
    row = summary(out)["strengths"][0]
    sde = library.load(snapped_checkpoint).model.sde
    near = float(sde.alpha(round(0.613 * sde.levels) / sde.levels))
    assert row["alpha"] == pytest.approx(near, rel=1e-9)


BAD = [
    (["--strength", "1.5"], ["--strength: 1.5", "at most 1"]),
    (["--strength", "nan"], ["--strength: nan"]),
    (["--strength", "1e-6"], ["--strength: 1e-06, but it must be 0 or above", "last time"]),
    (["--samples", "0"], ["--samples: 0", "at least 1"]),
    (["--samples", "100000000000"], ["--samples:", "GB of memory"]),
    (["--nfe", "1", "--sampler", "pc"], ["--nfe: 1, but it must be at least"]),
    (["--label", "3"], ["--label: 3 is no class", "no classes"]),
    (["--image", "none.png"], ["none.png", "does not exist"]),
    (["--n", "298"], ["--n: 298", "297"]),
    (["--sampler", "ancestral:variance=learned"], ["--sampler: ancestral:variance=learned cannot"]),
]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(("options", "parts"), BAD, ids=[" ".join(o) for o, _ in BAD])
def test_bad_inputs(refused, tiny_checkpoint, options, parts):
    refused(["edit", "--checkpoint", tiny_checkpoint, *options], *parts)


@pytest.mark.usefixtures("no_network")
def test_files_of_another_shape_and_classes_that_are_not_known(
    refused, labelled_checkpoint, picture, tmp_path
):
    file, _ = picture
    refused(
        ["edit", "--checkpoint", labelled_checkpoint, "--image", file], "--label: must be given"
    )
    np.save(tmp_path / "wide.npy", np.zeros((2, 9, 9)))
    wide = ["--image", tmp_path / "wide.npy", "--label", 0]
    refused(["edit", "--checkpoint", labelled_checkpoint, *wide], "has shape (2, 9, 9)")
    both = ["--image", file, "--n", 4]
    refused(["edit", "--checkpoint", labelled_checkpoint, *both], "together with --image")
