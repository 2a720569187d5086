"""Every command uses results again only if they were made from the same inputs."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from scoresde.comparison import feature_choice, report
from scoresde.comparison.plots import Drawn
from scoresde.comparison.request import BenchRequest
from scoresde.likelihood import likelihood_budget
from scoresde.score import NetworkScore
from scoresde.tasks.likelihood import scoring
from scoresde.verification import prepare as verification

from .conftest import TINY_UNET, write_checkpoint

COARSE = ("--t-min", 0.5, "--rtol", 0.5, "--atol", 0.5)
SCORED = (
    *("--method", "path", "--steps", 4, "--nodes", 4, "--trace", "hutchinson:probes=2"),
    *("--measured", 0, "--n", 4, "--t-min", 0.5),
)
# The options of each command, and what decides its numbers.
COMMANDS = {
    "sample": (("--n", 2, "--grid", "grid.json"), ["checkpoint", "grid"]),
    "edit": (
        ("--n", 2, "--nfe", 3, "--strength", 0.9),
        ["checkpoint", "test image", "test label"],
    ),
    "likelihood": (SCORED, ["checkpoint", "test image", "test label", "training image"]),
    "latent": (
        ("--n", 2, "--steps", 2, "--samples", 0, *COARSE),
        ["checkpoint", "test image", "test label"],
    ),
    "bench": (
        ("--samplers", "ddim", "--nfe", 3, "--n", 4, "--grids", "grid.json"),
        ["checkpoint", "test image", "test label", "training image", "grid"],
    ),
    "verify": (("--samplers", "ddim"), ["checkpoint"]),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No reference solution, or a coarse one, and no figures: other tests check these."""
    monkeypatch.setitem(BenchRequest.__init__.__kwdefaults__, "reference_tolerance", None)
    monkeypatch.setattr("scoresde.comparison.measure.RUNS", 1)
    monkeypatch.setattr("scoresde.comparison.measure.PASSES", 1)
    for name, value in (("COUNT", 2), ("LEAST", 8), ("NUMBERS", 64)):
        monkeypatch.setattr(f"scoresde.comparison.noise_levels.{name}", value)
    drawn = Drawn(b"<svg ></svg>", b"")
    monkeypatch.setattr(report, "curves", lambda *_: drawn)
    for measured in (report.Trajectories, report.NoiseLevels):
        monkeypatch.setattr(measured, "figure", drawn)
    monkeypatch.setattr(verification, "NETWORK_TOLERANCE", 1e-2)
    monkeypatch.setattr(verification, "NETWORK_STEPS", (2, 3, 4))
    for name in ("save_budget", "extremes"):
        monkeypatch.setattr(f"scoresde.tasks.likelihood.files.{name}", lambda path, *_: None)
    monkeypatch.setattr("scoresde.tasks.editing.save_restoration", lambda path, *_: None)
    for name in ("round_trip", "interpolation"):
        monkeypatch.setattr(f"scoresde.output.pictures.{name}", lambda path, *_: None)
    monkeypatch.setattr(verification, "save_errors_figure", lambda path, *_: None)


def draw(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder with images of two classes in two splits, a checkpoint of them, and a grid."""
    monkeypatch.chdir(tmp_path)
    for i in range(20):
        split = "train" if i < 12 else "test"
        draw(tmp_path / "data" / split / "ab"[i % 2] / f"{i:02d}.png", i)
    data, net = {"name": "./data"}, TINY_UNET | {"classes": 2}
    write_checkpoint(tmp_path / "run", data=data, net=net)
    write_checkpoint(tmp_path / "other", data=data, net=net | {"blocks": 2})
    (tmp_path / "grid.json").write_text("[1, 0.4, 0.001]")
    return tmp_path


def change(world, what):
    """Replace the content of one input and keep its name."""
    if what == "checkpoint":
        shutil.copy(world / "other" / "checkpoint.safetensors", world / "run")
    elif what == "test image":
        draw(world / "data" / "test" / "a" / "12.png", 100)
    elif what == "test label":
        (world / "data" / "test" / "a" / "14.png").rename(world / "data" / "test" / "b" / "14.png")
    elif what == "training image":
        draw(world / "data" / "train" / "a" / "00.png", 100)
    else:
        (world / "grid.json").write_text("[1, 0.3, 0.001]")


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def numbers(folder):
    """All results except the seconds."""
    for path in (folder / "summary.json", folder / "results.json"):
        if path.exists() and not (folder / "results.csv").exists():
            return {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if not k.startswith("seconds")} for row in table]


@pytest.mark.parametrize(
    "command", [*list(COMMANDS)[:-1], pytest.param("verify", marks=pytest.mark.slow)]
)
@pytest.mark.by_default("sample", "likelihood")
def test_whatever_changes_is_noticed(scoresde, world, monkeypatch, command):
    options, inputs = COMMANDS[command]
    arguments = (command, "--checkpoint", "run/checkpoint.safetensors", *options)
    first = scoresde(*arguments, "--out", "out")
    assert first.status == 0, first.err
    before = files(world / "out")
    with monkeypatch.context() as patch:
        patch.setattr(NetworkScore, "_native", None)  # no network may be run
        again = scoresde(*arguments, "--out", "out")
        assert (again.status, again.out) == (0, first.out)
        for what in inputs:
            kept = files(world)
            change(world, what)
            refused = scoresde(*arguments, "--out", "out")
            assert refused.status == 2, what
            assert refused.err.startswith("error: --out out: holds results "), what
            assert refused.err.count("\n") == 1
            assert "has changed since" in refused.err or "on another grid" in refused.err
            assert files(world / "out") == before
            for path in files(world).keys() - kept.keys():
                path.unlink()
            for path, content in kept.items():
                path.write_bytes(content)
        assert scoresde(*arguments, "--out", "out").out == first.out
    for what in inputs:
        change(world, what)
    anew = scoresde(*arguments, "--out", "out", "--overwrite")
    assert anew.status == 0, anew.err
    fresh = scoresde(*arguments, "--out", "fresh")
    assert fresh.status == 0, fresh.err
    assert numbers(world / "out") == numbers(world / "fresh")


def test_names_of_files_do_not_matter_and_labels_do(scoresde, labelled_checkpoint, tmp_path):
    """An array file: the same labels under another name, and one changed label under the same."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 17, (4, 1, 8, 8)), np.array([0, 1, 2, 3])
    np.savez(tmp_path / "a.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "b.npz", x=x, y=y)

    def score(name):
        data = ("--data", tmp_path / name, "--levels", 17, "--out", tmp_path / "out")
        return scoresde("likelihood", "--checkpoint", labelled_checkpoint, *SCORED, *data)

    first = score("a.npz")
    assert first.status == 0, first.err
    assert score("b.npz").out == first.out
    np.savez(tmp_path / "a.npz", x=x, y=np.array([0, 1, 2, 4]))
    assert "other data (" in score("a.npz").err
    shutil.copy(tmp_path / "b.npz", tmp_path / "a.npz")
    assert score("a.npz").out == first.out


@pytest.mark.slow
def test_other_features_are_other_results(scoresde, tiny_checkpoint, tmp_path, monkeypatch):
    arguments = ("bench", "--checkpoint", tiny_checkpoint, *COMMANDS["bench"][0][:6])
    first = scoresde(*arguments, "--out", tmp_path / "out")
    assert first.status == 0, first.err
    load = feature_choice.load_features

    def changed(name):
        features = load(name)
        features.mean = features.mean + 1
        return features

    monkeypatch.setattr(feature_choice, "load_features", changed)
    refused = scoresde(*arguments, "--out", tmp_path / "out")
    assert "made from other features (digits_cnn has changed since)" in refused.err


def test_a_stopped_likelihood_does_not_mix_two_data_sets(scoresde, world, monkeypatch):
    arguments = ("likelihood", "--checkpoint", "run/checkpoint.safetensors", *SCORED)
    arguments += ("--batch", 2, "--out", "out")
    calls = []

    def stopped(model, data, *method, **others):
        calls.append(len(data))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return likelihood_budget(model, data, *method, **others)

    monkeypatch.setattr(scoring, "likelihood_budget", stopped)
    assert scoresde(*arguments).status == 130
    for what in ("test image", "training image", "checkpoint"):
        change(world, what)
        assert "has changed since" in scoresde(*arguments).err
    assert calls == [2, 2]
    assert scoresde(*arguments, "--overwrite").status == 0
    assert calls == [2, 2, 2, 2]  # no part was used
