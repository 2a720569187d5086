"""`scoresde sample`."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scoresde_cli.lookups import Device
from scoresde_cli.sample import _in_words

import scoresde as library
from scoresde.names import parse_sampler
from scoresde.nets import UNet
from scoresde.samplers import DDIM
from scoresde.score import NetworkScore


def arrays(folder):
    with np.load(folder / "samples.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def draw(scoresde, tiny_checkpoint, tmp_path):
    """draw("--steps", 2): sample into a new folder; return its path and the output."""

    def call(*options, checkpoint=tiny_checkpoint, out=tmp_path / "out"):
        return out, scoresde("sample", "--checkpoint", checkpoint, "--out", out, *options)

    return call


def test_it_is_the_library(draw, tiny_checkpoint):
    """The file holds what `scoresde.sample` gives for the same arguments."""
    out, done = draw(
        *("--sampler", "ddim:eta=0.5", "--grid", "uniform", "--steps", 3, "--n", 5),
        *("--seed", 7, "--batch", 2, "--t-min", 0.01, "--no-denoise"),
    )
    assert done.status == 0, done.err
    checkpoint = library.load(tiny_checkpoint)
    ts = library.grid.uniform(checkpoint.model.sde, 3, 0.01)
    settings = {"seed": 7, "batch": 2, "denoise": False}
    wanted = library.sample(checkpoint.model, DDIM(0.5), ts, (5, 1, 8, 8), **settings)
    got = arrays(out)
    assert np.array_equal(got["x"], wanted.x)
    assert got["x"].dtype == np.float32
    assert np.array_equal(got["levels"], checkpoint.data.to_levels(wanted.x))
    assert got["levels"].dtype == np.uint8
    assert (int(got["nfe"]), int(got["seed"])) == (wanted.nfe, 7)
    assert np.array_equal(got["ts"], ts)


def test_it_says_what_it_did(draw):
    out, done = draw("--sampler", "ddim", "--grid", "uniform", "--steps", 3, "--n", 4)
    assert "4 samples by ddim in 3 steps of uniform: 4 NFE counted" in done.out
    assert "recommended" not in done.out
    assert str(out / "samples.npz") in done.out
    assert json.loads((out / "scoresde.json").read_text())["settings"]["seed"] == 0
    with Image.open(out / "grid.png") as picture:
        assert picture.size == (2 * 32 + 3 * 2, 2 * 32 + 3 * 2)  # 2×2 tiles, enlarged 4 times


def test_json_is_for_machines(draw):
    out, done = draw("--steps", 2, "--n", 2, "--json")
    assert json.loads(done.out) == json.loads((out / "summary.json").read_text())


@pytest.mark.parametrize(
    ("sampler", "denoise", "nfe", "steps", "counted"),
    [
        ("ddim", True, 5, 4, 5),
        ("ddim", False, 5, 5, 5),
        ("heun", True, 8, 3, 7),
        ("pc:steps=2", False, 7, 2, 6),
    ],
)
def test_nfe_is_a_budget(draw, sampler, denoise, nfe, steps, counted):
    """The largest number of steps within the budget, final denoising included, counted by hand."""
    flag = "--denoise" if denoise else "--no-denoise"
    _, done = draw("--sampler", sampler, "--nfe", nfe, flag, "--n", 1, "--json")
    found = json.loads(done.out)
    assert (found["steps"], found["nfe"]) == (steps, counted)


def test_what_each_sample_took_is_kept(draw):
    each, done = draw("--sampler", "dopri5:per_sample=true:rtol=1e-2:atol=1e-2", "--n", 3)
    out = draw("--sampler", "ddim", "--steps", 2, "--n", 3, out=each.with_name("other"))[0]
    took = arrays(each)
    assert took["sample_status"].tolist() == [0, 0, 0]
    attempts = took["sample_accepted"] + took["sample_rejected"]
    assert np.array_equal(took["sample_evaluations"], 2 + 6 * attempts)
    assert int(took["nfe"]) == took["sample_evaluations"].max() + 1  # the final denoise
    least, most = took["sample_evaluations"].min(), took["sample_evaluations"].max()
    assert (f"{least} to {most} NFE per sample" in done.out) == (least < most)
    assert "sample_status" not in arrays(out)


def test_an_adaptive_sampler_takes_its_own_steps(draw):
    _, done = draw("--sampler", "dopri5:rtol=1e-2:atol=1e-2", "--n", 2)
    assert done.status == 0
    assert "in its own steps" in done.out


def test_a_grid_from_a_file(draw, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text("[1, 0.3, 0.01]")
    out, done = draw("--grid", path, "--n", 2, "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert (found["grid"], found["steps"], found["t_min"]) == (str(path), 2, 0.01)
    assert arrays(out)["ts"].tolist() == [1, 0.3, 0.01]
    path.write_text("[1, 0.2, 0.01]")
    _, other = draw("--grid", path, "--n", 2)
    assert other.status == 2
    assert f"holds results made from another grid ({path} has changed since)" in other.err


def test_a_grid_with_parameters(draw, tiny_checkpoint):
    out, done = draw("--grid", "karras:rho=3", "--steps", 4, "--n", 1)
    assert done.status == 0, done.err
    sde = library.load(tiny_checkpoint).model.sde
    assert np.array_equal(arrays(out)["ts"], library.grid.karras(sde, 4, rho=3))


def test_rounded_labels_move_the_grid_and_it_says_so(draw, snapped_checkpoint):
    out, done = draw("--steps", 6, "--n", 2, checkpoint=snapped_checkpoint)
    assert done.status == 0, done.err
    assert "on the network's discrete times: 7 NFE counted" in done.out
    ts = 50 * arrays(out)["ts"]
    assert np.allclose(ts, np.round(ts), atol=1e-12)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["snapped"], summary["t_min"]) == (True, ts[-1] / 50)


def test_rounded_labels_and_more_evaluations_than_levels(draw, snapped_checkpoint):
    options = ("--sampler", "ddim", "--nfe", 70, "--n", 1, "--json")
    _, done = draw(*options, checkpoint=snapped_checkpoint)
    assert json.loads(done.out)["steps"] == 49


def test_the_seed_fixes_every_byte_but_the_time(draw, tmp_path):
    folders = [tmp_path / name for name in ("one", "two", "other")]
    for folder, seed in zip(folders, (3, 3, 4), strict=True):
        draw("--steps", 2, "--n", 3, "--seed", seed, out=folder)
    for name in ("samples.npz", "grid.png"):
        one, two, other = ((folder / name).read_bytes() for folder in folders)
        assert one == two
        assert one != other


def test_the_same_request_is_not_computed_again(draw, monkeypatch):
    _, first = draw("--steps", 2, "--n", 2)
    monkeypatch.setattr(NetworkScore, "_native", None)
    _, second = draw("--steps", 2, "--n", 2)
    assert second.out == first.out


def test_overwrite_replaces(draw):
    out, _ = draw("--steps", 2, "--n", 2)
    _, refused = draw("--steps", 2, "--n", 3)
    assert refused.status == 2
    assert "holds results with n = 2, not 3" in refused.err
    assert len(arrays(out)["x"]) == 2
    draw("--steps", 2, "--n", 3, "--overwrite")
    assert len(arrays(out)["x"]) == 3


def test_complete_results_are_found_in_a_folder_that_cannot_be_written(draw, monkeypatch):
    _, first = draw("--steps", 2, "--n", 2)
    # root may write anywhere
    monkeypatch.setattr(
        "scoresde.output.result_folder.os.access", lambda path, mode: not mode & os.W_OK
    )
    monkeypatch.setattr("scoresde.output.result_folder.lock_folder", None)
    _, second = draw("--steps", 2, "--n", 2)
    assert (second.status, second.out) == (0, first.out)


def test_a_failed_overwrite_leaves_the_old_results(draw, monkeypatch):
    out, first = draw("--steps", 2, "--n", 2)
    with monkeypatch.context() as patch:
        patch.setattr("scoresde.tasks.sampling.save_samples", lambda *_: {}["disk full"])
        with pytest.raises(KeyError):
            draw("--steps", 2, "--n", 3, "--overwrite")
    assert [path.name for path in (out / "parts").iterdir()] == ["00000000.npz"]
    assert draw("--steps", 2, "--n", 2)[1].out == first.out


@pytest.mark.parametrize("settings", ['{"seed": 1}', '{"command": "sample"}', "{"])
def test_the_folder_of_a_stranger_is_never_touched(draw, tmp_path, settings):
    out = tmp_path / "out"
    out.mkdir()
    (out / "chapter1.tex").write_text("text")
    (out / "settings.json").write_text(settings)
    _, done = draw("--steps", 1, "--n", 1, "--overwrite")
    assert done.status == 2
    assert sorted(path.name for path in out.iterdir()) == ["chapter1.tex", "settings.json"]


def test_float64_is_float64_throughout(draw, monkeypatch):
    seen = set()
    native = NetworkScore._native

    def spy(self, x, node):
        seen.update({x.dtype, next(self.net.parameters()).dtype})
        return native(self, x, node)

    monkeypatch.setattr(NetworkScore, "_native", spy)
    out, _ = draw("--steps", 2, "--n", 2, "--dtype", "float64")
    assert seen == {torch.float64}
    assert arrays(out)["x"].dtype == np.float64


def test_bfloat16_is_the_networks_alone(draw, tmp_path):
    exact, _ = draw("--steps", 5, "--n", 4, out=tmp_path / "float32")
    rounded, _ = draw("--steps", 5, "--n", 4, "--dtype", "bfloat16", out=tmp_path / "bfloat16")
    exact, rounded = arrays(exact)["x"], arrays(rounded)["x"]
    assert rounded.dtype == np.float32
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 0 < error < 2e-2  # 8 bits of mantissa, a few roundings


def test_labels_come_in_turn_or_as_asked(draw, labelled_checkpoint, tmp_path):
    turn, _ = draw("--steps", 1, "--n", 12, checkpoint=labelled_checkpoint)
    assert arrays(turn)["labels"].tolist() == [*range(10), 0, 1]
    asked, _ = draw(
        *("--steps", 1, "--n", 2, "--label", 7),
        checkpoint=labelled_checkpoint,
        out=tmp_path / "asked",
    )
    assert arrays(asked)["labels"].tolist() == [7, 7]


def test_the_file_is_data(draw, labelled_checkpoint):
    """Levels, scale, labels and number of classes as the checkpoint has them."""
    out, _ = draw("--steps", 1, "--n", 3, "--label", 4, checkpoint=labelled_checkpoint)
    data, spec = library.load_dataset(out / "samples.npz"), library.load(labelled_checkpoint).data
    assert np.array_equal(data.x.numpy(), arrays(out)["levels"])
    assert data.labels.tolist() == [4, 4, 4]
    assert data.spec == replace(spec, name="samples.npz")


def test_points_have_no_levels_and_a_picture_of_all(draw, points_checkpoint):
    out, done = draw("--steps", 2, "--n", 3, checkpoint=points_checkpoint)
    assert done.status == 0
    names = ["samples.npz", "samples.png", "scoresde.json", "summary.json"]
    assert sorted(p.name for p in out.iterdir()) == names
    assert sorted(arrays(out)) == ["nfe", "seed", "spec", "ts", "x"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_out_of_memory_says_what_to_try_and_leaves_nothing(draw, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(NetworkScore, "_native", fail)
    out, done = draw("--steps", 2, "--n", 20, "--batch", 16)
    assert done.status == 1
    assert done.err == (
        "error: out of memory with a batch of 16, each of shape (1, 8, 8); try --batch 8\n"
    )
    assert not out.exists()


def test_a_failure_leaves_nothing(draw, monkeypatch):
    monkeypatch.setattr(UNet, "forward", lambda self, x, label, y: x / 0)
    out, done = draw("--steps", 2)
    assert done.status == 1
    assert "non-finite" in done.err
    assert not out.exists()


@pytest.mark.parametrize(("nfe", "denoise"), [(None, True), (5, True), (6, False)])
def test_the_recommended_settings_are_those_of_the_library(draw, tiny_checkpoint, nfe, denoise):
    options = () if nfe is None else ("--nfe", nfe)
    options += () if denoise else ("--no-denoise",)
    out, done = draw(*options, "--n", 2)
    assert done.status == 0, done.err
    model = library.load(tiny_checkpoint).model
    wanted = library.sample(model, shape=(2, 1, 8, 8), nfe=nfe, denoise=denoise)
    assert np.array_equal(arrays(out)["x"], wanted.x)
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["grid"], summary["nfe"]) == (wanted.grid, nfe or 20)
    assert parse_sampler(summary["sampler"]) == wanted.sampler
    assert summary["recommended"] == ["sampler", "grid"]
    assert f"{summary['sampler']} in {summary['steps']} steps of {wanted.grid}" in done.out


def test_a_grid_with_its_own_last_time(draw, tiny_checkpoint, tmp_path):
    out, done = draw("--grid", "uniform:t_min=0.05", "--steps", 3, "--n", 1)
    assert done.status == 0, done.err
    assert arrays(out)["ts"][-1] == 0.05
    again = draw("--grid", "uniform:t_min=0.05", "--t-min", 0.05, "--steps", 3, "--n", 1)[1]
    assert again.status == 0
    refused = draw("--grid", "uniform:t_min=0.05", "--t-min", 0.1, out=tmp_path / "new")[1]
    assert refused.status == 2
    assert "--t-min: 0.1, but --grid uniform:t_min=0.05 has its own; leave one out" in refused.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("nfe", [1, 2])
def test_too_few_evaluations(draw, nfe):
    out, done = draw("--sampler", "heun", "--nfe", nfe)
    assert done.status == 2
    what = "it must be at least 3, for one step and the final denoising of this sampler"
    assert done.err == f"error: --nfe: {nfe}, but {what}\n"
    assert not out.exists()


def test_the_device_that_auto_stands_for_is_recorded(draw):
    out, done = draw("--nfe", 2, "--n", 1)
    assert done.status == 0, done.err
    assert json.loads((out / "scoresde.json").read_text())["settings"]["device"] == "cpu"
    again = draw("--nfe", 2, "--n", 1, "--device", "cpu")[1]
    assert again.status == 0, again.err


@pytest.mark.parametrize(("there", "device"), [(True, "cuda"), (False, "cpu")])
def test_auto_is_cuda_where_it_is(monkeypatch, there, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert Device().replaced("auto") == device
    assert Device(at_once=False).replaced("auto") == "auto"
    assert Device().replaced("cuda:1") == "cuda:1"


def test_results_of_an_earlier_version_are_told_in_words():
    """Their summaries lack entries that came later: guidance, transform, the start."""
    old = {
        **{"n": 2, "steps": 2, "grid": "log_snr", "snapped": False, "sampler": "ddim", "nfe": 3},
        **{"seconds": 0.1, "recommended": [], "nfe_per_sample": None, "files": ["samples.npz"]},
    }
    assert "2 samples by ddim in 2 steps of log_snr: 3 NFE" in _in_words(old, Path("out"))
