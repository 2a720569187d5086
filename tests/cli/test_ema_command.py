"""`scoresde ema`: the sweep of the length of the average, its files and its refusals."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from scoresde.data import load_dataset
from scoresde.exact import GaussianMixture
from scoresde.loss import Objective
from scoresde.names.config import Config
from scoresde.names.loading import load
from scoresde.sde import VP
from scoresde.tasks.held_out import choose_rows
from scoresde.tasks.held_out_loss import held_out_losses
from scoresde.tasks.train.run import Run
from scoresde.train import Training

from .conftest import TINY_UNET

SHORT = ("--n", 8, "--draws", 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of digits, 8 steps with a snapshot every 2, whose power averages differ."""
    folder = tmp_path_factory.mktemp("trained")
    train = {"steps": 8, "batch": 8, "warmup": 1, "learning_rate": 1e-2, "ema_snapshot_every": 2}
    tables = {"data": {"name": "digits"}, "sde": {"kind": "vp"}, "net": TINY_UNET, "train": train}
    config = Config.from_dict(tables)
    data = replace(load_dataset(config.data), labels=None)
    metadata = {"config": config.to_dict(), "data": data.spec.to_dict()}
    training = Training(config.build_model(data.spec), data, config.objective, config.train)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_losses", "draw_samples"):
            patch.setattr(f"scoresde.tasks.train.run.{name}", lambda *_: None)
        for _ in Run(folder, training, metadata).steps():
            pass
    return folder


def test_the_table_holds_the_losses_of_the_saved_averages(scoresde, trained, tmp_path):
    done = scoresde("ema", trained, "--sigma-rel", "0.1,0.05", *SHORT, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["sigma_rel"] for row in summary["rows"]] == [0.1, 0.05, None]
    assert summary["reference"] is None
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"summary.json", "table.txt", "sweep.png", "scoresde.json"}
    assert "EMA, decay 0.999" in done.out

    rows = torch.from_numpy(choose_rows(data := load_dataset("digits", "test"), 8, 0))
    data = replace(data, x=data.x[rows], labels=None)
    found = []
    for width in (0.1, 0.05):
        path = tmp_path / f"{width}.safetensors"
        saved = scoresde("ema", trained, "--save", width, "--out", path, "--json")
        assert json.loads(saved.out)["residual"] < 1e-6
        found.append(held_out_losses(load(path).model, data, Objective(), draws=2))
    found.append(
        held_out_losses(load(trained / "checkpoint.safetensors").model, data, Objective(), draws=2)
    )
    for row, losses in zip(summary["rows"], found, strict=True):
        assert row["value"] == pytest.approx(float(losses.mean()), rel=1e-6)
    change = found[0] - found[2]
    first = summary["rows"][0]
    assert first["difference"] == pytest.approx(float(change.mean()), rel=1e-6)
    assert first["difference_error"] == pytest.approx(float(change.std() / 8**0.5), rel=1e-6)

    before = (tmp_path / "out" / "summary.json").stat().st_mtime_ns
    again = scoresde("ema", trained, "--sigma-rel", "0.1,0.05", *SHORT, "--out", tmp_path / "out")
    assert again.out == done.out
    assert (tmp_path / "out" / "summary.json").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize(("by", "unit"), [("bits", "bits/dim"), ("mmd", "MMD²")])
def test_other_measures(scoresde, trained, tmp_path, by, unit):
    arguments = ("--step", 6, "--sigma-rel", "0.05,0.1", "--n", 8, "--by", by)
    done = scoresde("ema", trained, *arguments, "--out", tmp_path / "out", "--json")
    summary = json.loads(done.out)
    assert summary["unit"] == unit
    assert [row["sigma_rel"] for row in summary["rows"]] == [0.05, 0.1]  # the EMA is of step 8
    assert summary["best"] == summary["reference"]
    errors = [row["difference_error"] is not None for row in summary["rows"]]
    assert sum(errors) == (by == "bits")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--step", 3), "--step: 3 has no snapshot; the steps of "),
        (("--sigma-rel", "0.1,0.3"), "--sigma-rel: 0.3 is not a number above 0 and at most 0.288"),
        (("--sigma-rel", "0.001"), "--sigma-rel: sigma_rel 0.001 cannot be made"),
        (("--sigma-rel", "0.1,0.1"), "--sigma-rel: 0.1 is given twice"),
        (("--n", 298), "--n: 298 is more than the 297 of digits (test)"),
        (("--save", "0.1", "--sigma-rel", "0.1"), "--save: cannot be given with --sigma-rel"),
        (("--save", "0.1", "--by", "bits"), "--save: cannot be given with --by"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(
    scoresde, trained, tmp_path, no_network, options, message
):
    done = scoresde("ema", trained, *options, "--out", tmp_path / "out")
    assert done.status == 2
    assert done.err.startswith(f"error: {message}")
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_is_no_run_is_refused(scoresde, trained, tmp_path):
    done = scoresde("ema", tmp_path, "--out", tmp_path / "out")
    assert (done.status, done.err) == (
        2,
        f"error: {tmp_path / 'checkpoint.safetensors'}: no such file\n",
    )
    shutil.copy(trained / "checkpoint.safetensors", tmp_path)
    done = scoresde("ema", tmp_path, "--out", tmp_path / "out")
    assert done.status == 2
    assert "holds no snapshots of averages; train with train.ema_snapshot_every" in done.err


def test_the_loss_of_an_exact_model_is_the_irreducible_one():
    """For N(0, s²) it is E α² s²/(α² s² + σ²) over the times. Batches change nothing."""
    sde, s = VP(), 0.4
    model = GaussianMixture(sde, [1.0], torch.zeros(1, 2, dtype=torch.float64), [s**2])
    x = s * torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
    data = replace(load_dataset("mixture3"), x=x, labels=None)
    losses = held_out_losses(model, data, Objective(t_min=0.01), draws=4, batch=400)
    parts = held_out_losses(model, data, Objective(t_min=0.01), draws=4, batch=150)
    assert torch.equal(losses, parts)
    t = torch.linspace(0.01, 1, 4001, dtype=torch.float64)
    signal, noise = (s * sde.alpha(t)) ** 2, sde.sigma(t) ** 2
    exact = signal / (signal + noise)
    error = float(losses.std()) / 400**0.5
    assert abs(float(losses.mean()) - float(exact.mean())) < 4 * error
    assert error < 0.1 * float(exact.mean())
