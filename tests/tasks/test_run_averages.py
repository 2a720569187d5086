"""Snapshots of a run's averages: what they give after training, and how they resume."""

import warnings

import pytest
import torch

from scoresde.checkpoint import CheckpointError, read_checkpoint, save_checkpoint
from scoresde.data import load_dataset
from scoresde.ema import PowerEMA, Profile
from scoresde.ema.posthoc import inner_products
from scoresde.names.config import Config
from scoresde.names.loading import load
from scoresde.tasks.averages import RunAverages, save_average
from scoresde.tasks.train.files import Intervals, check_folder
from scoresde.tasks.train.run import Run
from scoresde.train import Training

UNET = {"kind": "unet", "channels": 8, "multipliers": [1], "blocks": 1, "attention": []}
MLP = {"kind": "mlp", "width": 8, "depth": 1}


def make(folder, data="mixture3", net=MLP, **train):
    """A run with snapshots every 5 steps; save_every and log_every leave it in peace."""
    settings = {"steps": 40, "batch": 16, "warmup": 2, "learning_rate": 1e-2, **train}
    made = Config.from_dict(
        {
            "data": {"name": data},
            "sde": {"kind": "vp"},
            "net": net,
            "train": {"ema_snapshot_every": 5, **settings},
        }
    )
    data = load_dataset(made.data)
    data = type(data)(data.name, data.x, None, data.spec, split=data.split)
    metadata = {"config": made.to_dict(), "data": data.spec.to_dict()}
    training = Training(made.build_model(data.spec), data, made.objective, made.train)
    return Run(folder, training, metadata, Intervals(log_every=1000, save_every=1000))


@pytest.fixture(autouse=True, scope="module")
def _no_figures():
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_losses", "draw_samples"):
            patch.setattr(f"scoresde.tasks.train.run.{name}", lambda *_: None)
        yield


def states(run, until=None):
    """Train, yielding the network's weights after each step; stop after a step."""
    for progress in run.steps():
        yield {k: v.clone() for k, v in run.model.net.state_dict().items()}
        if progress.step.step == until:
            break


def finish(run, until=None):
    for _ in states(run, until):
        pass


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(make(folder))
    return folder


def snapshots(folder):
    return {path.name: path.read_bytes() for path in folder.glob("ema-*")}


@pytest.mark.parametrize(
    ("data", "net", "train"),
    [
        ("mixture3", MLP, {}),
        pytest.param(
            *("digits", UNET, {"steps": 300, "ema_snapshot_every": 20}), marks=pytest.mark.slow
        ),
    ],
)
def test_a_reconstructed_average_is_the_tracked_one_up_to_the_residual(tmp_path, data, net, train):
    """For each weight w, by the inequality of Cauchy and Schwarz:

    |Σ x_i w̄_i − w̄| ≤ ‖Σ x_i p_i − p‖ √(Σ_k (w_k − w̄)²), and half precision adds 2⁻¹¹ Σ |x_i w̄_i|.
    """
    run = make(tmp_path, data, net, **train)
    tracked = [PowerEMA(run.model.net, width) for width in (0.03, 0.07, 0.15, 0.25)]
    path = []
    for state in states(run):
        path.append(state)
        for average in tracked:
            average.update(run.model.net)
    averages = RunAverages.read(tmp_path)
    for average in tracked:
        fit = averages.fit(average.sigma_rel)
        assert fit.residual < 0.35
        wanted = Profile(average.sigma_rel, len(path))
        norm = float(inner_products([wanted], [wanted])) ** 0.5
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = averages.checkpoint(average.sigma_rel).below("model.")
        gain = sum(map(abs, fit.coefficients))
        for name, exact in average.averages.items():
            weights = torch.stack([state[name] for state in path]).double()
            spread = (weights - exact).square().sum(0).sqrt()
            rounding = gain * (weights.abs().amax(0) * 2**-11 + 3e-8)
            error = (found[name] - exact).abs()
            assert (error <= fit.residual * norm * spread + rounding).all(), name


@pytest.mark.parametrize("k", [4, 5, 39])
@pytest.mark.by_default("4")
def test_a_resumed_run_has_the_snapshots_of_an_unbroken_one(tmp_path, whole, k):
    finish(make(tmp_path), until=k)
    later = tmp_path / "ema-0000040.safetensors"
    later.write_bytes(b"of steps that are not in the checkpoint")
    run = make(tmp_path)
    assert run.resume() == k
    finish(run, until=k + 1)
    assert later.exists() == (k == 39)  # removed, or written again
    run = make(tmp_path)
    run.resume()
    finish(run)
    assert snapshots(tmp_path) == snapshots(whole)
    assert len(snapshots(whole)) == 8
    ours, theirs = (read_checkpoint(f / "checkpoint.safetensors") for f in (tmp_path, whole))
    assert ours.tensors.keys() == theirs.tensors.keys() > {"train.ema.1.head.weight"}
    assert all(torch.equal(v, theirs.tensors[name]) for name, v in ours.tensors.items())


def test_a_new_run_removes_the_snapshots_of_an_old_one(tmp_path):
    finish(make(tmp_path), until=5)
    check_folder(tmp_path)
    finish(make(tmp_path, ema_snapshot_every=0, steps=2))
    assert not snapshots(tmp_path)
    raw = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert not raw.below("train.ema.")
    with pytest.raises(FileNotFoundError, match="holds no snapshots .* train.ema_snapshot_every"):
        RunAverages.read(tmp_path)


def test_a_saved_average_loads_and_is_of_its_step(tmp_path, whole):
    """0.1 is stored itself, so that the file holds its rounded values."""
    out = tmp_path / "average.safetensors"
    fit = save_average(RunAverages.read(whole, step=20), 0.1, out)
    assert fit.residual < 1e-6
    made = load(out)
    stored = read_checkpoint(whole / "ema-0000020.safetensors").below("1.")
    for name, value in made.model.net.state_dict().items():
        torch.testing.assert_close(value, stored[name].float(), rtol=1e-6, atol=1e-7)
    assert made.metadata["steps_done"] == 20
    assert made.metadata["ema"] == {"sigma_rel": 0.1, "residual": fit.residual}
    with pytest.raises(ValueError, match="is there already; give another name"):
        save_average(RunAverages.read(whole), 0.1, out)
    with pytest.warns(UserWarning, match=r"σ_rel 0\.02 .* residual of 0\.\d\d"):
        save_average(RunAverages.read(whole), 0.02, tmp_path / "short.safetensors")


def test_a_step_without_snapshot_and_a_foreign_file_are_refused(tmp_path, whole):
    with pytest.raises(ValueError, match=r"--step: 7 has no snapshot; the steps .* are 5, 10, 15"):
        RunAverages.read(whole, step=7)
    finish(make(tmp_path), until=5)
    path = tmp_path / "ema-0000004.safetensors"
    save_checkpoint(path, {"w": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="ema-0000004.*: not a snapshot of averages"):
        RunAverages.read(tmp_path)


def test_values_beyond_float16_keep_their_dtype(tmp_path):
    run = make(tmp_path, steps=5)
    for average in run.power_emas:
        average.averages["head.bias"].fill_(1e6)
    for average in run.power_emas:
        average.restore(10**9, average.averages)  # so that the five updates hardly change it
    finish(run)
    raw = read_checkpoint(tmp_path / "ema-0000005.safetensors")
    assert raw.tensors["0.head.bias"].dtype == torch.float32
    assert raw.tensors["0.head.bias"].max() > 9e5
    assert raw.tensors["0.head.weight"].dtype == torch.float16


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ema_snapshot_every": -1}, "ema_snapshot_every must be at least 0, got -1"),
        ({"ema_sigma_rel": []}, r"ema_sigma_rel must be different widths, at least 1, got \(\)"),
        ({"ema_sigma_rel": [0.1, 0.1]}, "ema_sigma_rel must be different widths"),
        ({"ema_sigma_rel": [0.3]}, "ema_sigma_rel must be at most 0.288"),
        ({"ema_sigma_rel": 0.1}, "train.ema_sigma_rel must be a list of numbers, got 0.1"),
    ],
)
def test_bad_settings_are_refused(tmp_path, values, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path, **values)
