"""`scoresde plot`: the irreducible loss, and the pictures of a run."""

import json
from importlib.util import find_spec

import pytest
import torch
from PIL import Image

from scoresde.data import DataSpec, load_dataset
from scoresde.loss import Objective
from scoresde.names.config_source import ConfigSource
from scoresde.output import training_curves
from scoresde.output.animation import LAST, save_animation
from scoresde.output.manifest import Origin, Source
from scoresde.output.result_folder import SUMMARY, ResultFolder
from scoresde.output.tensorboard import EVENTS
from scoresde.output.training_curves import LeastLoss, save_curves
from scoresde.sde import VE, VP
from scoresde.tasks.plot import plot_run
from scoresde.tasks.sweeps import SWEEP, find_sweeps
from scoresde.tasks.train.files import Intervals
from scoresde.tasks.train.irreducible import exact_model, least_loss
from scoresde.tasks.train.prepare import prepare_run


@pytest.mark.parametrize("objective", [Objective(t_min=1e-3), Objective("edm", "log_snr", 1e-3)])
def test_irreducible_loss_of_a_density_is_that_of_the_exact_score(objective):
    data, sde = load_dataset("mixture3"), VP()
    name, model = exact_model(data, sde)
    found = least_loss(name, model, data, objective, 0.0, 0)
    x0, n = model.sample(20_000, seed=1), 20_000
    generator = torch.Generator().manual_seed(0)
    u = (torch.arange(n) + torch.rand(n, generator=generator)) / n
    eps = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    losses, t, errors = objective(model, x0, u, eps)
    error = float(losses.std()) / n**0.5
    assert float(losses.mean()) == pytest.approx(found.loss, abs=4 * (error + found.std_error))
    assert found.std_error < 0.02 * found.loss
    late = (t >= 0.5) & (t < 0.55)
    error = float(errors[late].std()) / int(late.sum()) ** 0.5
    assert float(found.error_by_t[10]) == pytest.approx(float(errors[late].mean()), abs=5 * error)


def test_the_exact_score_is_known_of_points_only():
    assert exact_model(load_dataset("moons"), VE())[0] == "20000 points"
    assert exact_model(load_dataset("digits"), VP()) is None


def row(step, **more):
    errors = [1 / step, None, 0.1]
    values = {"loss": 1 / step, "grad_norm": 2.0, "learning_rate": 1e-3, "error_by_t": errors}
    return {"step": step, **values, **more}


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn, instead of their files."""
    figures = []
    monkeypatch.setattr(training_curves, "save_figure", lambda path, figure: figures.append(figure))
    return figures


def test_the_curves_show_what_the_log_has(drawn, tmp_path):
    found = {"loss": 0.7, "std_error": 0.1, "training_loss": 0.3, "n": 9, "error_by_t": [1, 2, 3]}
    bits = {"nll": 3.5, "nll_std_error": None, "unit": "bits/dim"}
    least = LeastLoss("moons", 0.25, 0.01, torch.tensor([0.1, 0.2, 0.3]))
    save_curves("x.png", [row(10), row(20, validation=None), row(30, loss=None)])
    losses = {10: 0.9, 20: 0.7, 30: None}
    checked = [row(n, validation=found | bits | {"loss": loss}) for n, loss in losses.items()]
    save_curves("x.png", checked, 1.0, least)
    plain, full = ([len(axis.lines) for axis in figure.axes] for figure in drawn)
    assert plain == [2, 3, 1, 1]
    # validation, its training loss, its best step, the irreducible loss; the clip
    assert full[:4] == [2 + 6, 3 + 2, 1 + 1, 1]
    assert (len(full), full[4] > 0, full[5]) == (6, True, 1)
    legend = drawn[1].axes[0].get_legend().get_texts()
    assert {"irreducible, moons: 0.25 ± 0.01", "smallest loss on held-out data, step 20"} <= {
        text.get_text() for text in legend
    }


def sweep(folder, checkpoint, command="ema"):
    """A finished result of `scoresde ema` for a checkpoint."""
    origin = Origin(command, {"n": 2}, {"checkpoint": Source("c", checkpoint)})
    with ResultFolder.open(folder, origin).write((SWEEP, SUMMARY)) as output:
        Image.new("RGB", (4, 4)).save(output.work / SWEEP)
        output.finish({"by": "bits", "best": 0.1, "step": 40})
    return folder


def test_the_sweeps_of_this_state_of_the_run_are_found(tmp_path):
    run, other = tmp_path / "run", tmp_path / "out"
    ours = sweep(run / "ema", "now")
    (run / "notes").mkdir(parents=True)
    sweep(run / "bits", "now", "likelihood")
    given = sweep(other, "now")
    found = find_sweeps(run, [given, ours], "now")
    assert [one.picture for one in found] == [ours / SWEEP, given / SWEEP]
    assert "bits" not in found[0].caption
    assert "likelihood of held-out data against relative width; smallest at" in found[0].caption
    with pytest.warns(UserWarning, match="ema: holds .* earlier state of this one; left out"):
        assert find_sweeps(run, [], "later") == []
    with pytest.raises(ValueError, match="--ema .*bits: holds no finished results of `scoresde em"):
        find_sweeps(run, [run / "bits"], "now")
    (given / SWEEP).unlink()
    with pytest.raises(ValueError, match=r"--ema .*out: .*sweep\.png is missing or damaged"):
        find_sweeps(run, [given], "now")


def test_an_animation_has_one_frame_per_state_and_stays_at_the_last(tmp_path):
    spec, nodes = DataSpec((1, 8, 8), -1, 1), VE().nodes([1.0, 0.5, 0.1])
    states = [(node, torch.full((4, 1, 8, 8), 0.5 * node.sigma)) for node in nodes]
    save_animation(tmp_path / "a.png", states, spec)
    with Image.open(tmp_path / "a.png") as picture:
        assert (picture.n_frames, picture.info["loop"]) == (3, 0)
        grey = []
        for frame in range(3):
            picture.seek(frame)
            grey.append(picture.convert("L").getpixel((50, 50)))
        assert picture.info["duration"] == LAST
    # x/√(1 + σ²) = 0.5 for large σ, on the scale from −1 to 1
    assert 191 == grey[0] > grey[1] > grey[2]


DIGITS = """
[data]
name = "digits"
[sde]
kind = "vp"
[net]
kind = "unet"
channels = 4
multipliers = [1]
blocks = 1
attention = []
classes = 10
[train]
steps = 2
batch = 8
warmup = 0
"""


@pytest.fixture
def run(tmp_path):
    """run("net.classes=10") trains two steps on digits; the run's folder."""

    def make(*changes):
        (tmp_path / "c.toml").write_text(DIGITS)
        source, folder = ConfigSource(tmp_path / "c.toml", changes), tmp_path / "run"
        made = prepare_run(source, folder, intervals=Intervals(log_every=1, sample_every=1))
        for _ in made.steps():
            pass
        return folder

    return make


def test_folders_without_a_run_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"RUN .*: holds no log.jsonl of `scoresde train`"):
        plot_run(tmp_path, tmp_path / "out")
    (tmp_path / "log.jsonl").touch()
    with pytest.raises(ValueError, match="checkpoint.safetensors"):
        plot_run(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_pictures_of_a_run_on_images(run, tmp_path):
    folder, out = run(), tmp_path / "out"
    options = {"nfe": 4, "tensorboard": find_spec("tensorboard") is not None}
    found = plot_run(folder, out, **options)
    assert len([*out.glob(f"{EVENTS}*")]) == options["tensorboard"]
    files = ["curves.png", "samples.png", "denoising.png", "sampling.png"]
    assert (found["files"], found["steps"], found["irreducible"]) == (files, 2, None)
    page = (out / "plots.html").read_text()
    assert all(f'src="{name}"' in page for name in files)
    with Image.open(out / "sampling.png") as picture:
        assert picture.n_frames >= 3
    stamp = (out / "curves.png").stat().st_mtime_ns
    assert plot_run(folder, out, **options) == found
    assert (out / "curves.png").stat().st_mtime_ns == stamp
    with pytest.raises(ValueError, match="nfe = 4, not 5; give another folder, or --overwrite"):
        plot_run(folder, out, nfe=5)
    (folder / "log.jsonl").write_text((folder / "log.jsonl").read_text() + "\n")
    with pytest.raises(ValueError, match="made from another log"):
        plot_run(folder, out, nfe=4)


@pytest.mark.slow
def test_the_pictures_of_a_run_on_points(tmp_path):
    changes = ("data.name=mixture3", "train.steps=2", "train.batch=16")
    made = prepare_run(ConfigSource("moons_vp", changes), tmp_path / "run")
    with pytest.warns(UserWarning, match="never reached"):
        for _ in made.steps():
            pass
    found = plot_run(tmp_path / "run", tmp_path / "out", nfe=3)
    assert found["files"] == ["curves.png", "samples.png", "sampling.png"]
    assert found["irreducible"]["loss"] < found["loss"]
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == found
