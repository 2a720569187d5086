"""`scoresde.bench`: any score model, any form of data, several models, and what is refused."""

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

import scoresde
from scoresde.comparison import sweep as sweep_module
from scoresde.comparison.findings import Findings
from scoresde.comparison.labels import named_models
from scoresde.data import Dataset, DataSpec
from scoresde.exact import GaussianMixture
from scoresde.metrics import paired_rmse, sliced_wasserstein
from scoresde.nets import MLP
from scoresde.output.result_folder import check_whole
from scoresde.samplers import DDIM, GridSampler
from scoresde.score import NetworkScore, Preconditioning
from scoresde.sde import VP, TabulatedVP, cosine_betas
from scoresde.tasks.live import LiveModel
from scoresde.tasks.own_data import both_splits

PARAMETERS = ([0.5, 0.5], [[1.0, 0.0], [-1.0, 0.5]], [0.1, 0.2])
QUICK = {"samplers": [DDIM()], "nfe": [4], "n": 8, "reference_tolerance": 1e-4, "progress": False}


class Own(GridSampler):
    """DDIM, written again."""

    def step(self, model, x, t, s, state, noise):
        x0 = model.x0(x, t)
        return s.alpha * x0 + s.sigma / t.sigma * (x - t.alpha * x0), None


def needs_y(x, t, y):
    return x * y[:, None]


@pytest.fixture(autouse=True)
def few_projections(no_figures, monkeypatch):
    """Of the sliced distance, whose value no test here reads."""
    monkeypatch.setitem(sliced_wasserstein.__kwdefaults__, "projections", 16)


@pytest.fixture
def model():
    return GaussianMixture(VP(), *PARAMETERS)


@pytest.fixture
def never_drawn(monkeypatch):
    """From here on, drawing samples is an error."""

    def forbid():
        def drawn(*_, **__):
            raise AssertionError("samples were drawn")

        monkeypatch.setattr(sweep_module, "draw", drawn)

    return forbid


def test_objects_give_the_numbers_of_sample_and_an_own_sampler_is_a_row(model, tmp_path):
    ts = torch.tensor([1.0, 0.6, 0.3, 0.05], dtype=torch.float64)
    given = {"samplers": [DDIM(), Own()], "nfe": 4, "grids": {"mine": ts}, "shape": (2,)}
    out = scoresde.bench(model, **QUICK | given, out=tmp_path / "out")
    assert out.report == tmp_path / "out" / "report.html"
    assert "Own" in str(out)
    ddim, own, _ = out.rows
    assert (ddim["sampler"], own["sampler"]) == ("ddim", "Own")
    assert ddim["grid"] == "mine"
    assert ddim["mmd2"] is None  # no data
    exact = scoresde.ProbabilityFlowODE("dopri8", 1e-10, 1e-10)
    start = {"shape": (8, 2), "seed": 0, "dtype": torch.float64}
    end = scoresde.sample(model, exact, [1.0, 1e-3], **start).x
    error = paired_rmse(scoresde.sample(model, DDIM(), ts, **start).x, end).value
    assert ddim["paired_rmse"] == pytest.approx(error, abs=1e-4)  # the reference's tolerance
    assert own["paired_rmse"] == pytest.approx(error, abs=1e-4)


def test_the_same_call_runs_nothing_and_a_change_of_the_model_is_refused(
    model, tmp_path, never_drawn
):
    first = scoresde.bench(model, **QUICK, shape=(2,), out=tmp_path / "out")
    never_drawn()
    again = scoresde.bench(
        GaussianMixture(VP(), *PARAMETERS), **QUICK, out=first.folder, shape=(2,)
    )
    assert again == first
    other = GaussianMixture(VP(), PARAMETERS[0], PARAMETERS[1], [0.1, 0.21])
    with pytest.raises(ValueError, match="results made from another model"):
        scoresde.bench(other, **QUICK, shape=(2,), out=first.folder)


@pytest.mark.slow
def test_interpolated_labels_stand_beside_rounded_ones(tmp_path):
    """On the ladder both labels are equal; only interpolated ones have an ODE to compare with."""
    torch.manual_seed(0)
    net = MLP((2,), width=8, depth=1)
    models = {
        label: NetworkScore(net, TabulatedVP(cosine_betas(20)), Preconditioning(label=label))
        for label in ("index", "rounded_index")
    }
    grids = ("log_snr", "log_snr:ladder=true")
    given = QUICK | {"grids": grids, "shape": (2,), "out": tmp_path / "out"}
    found = scoresde.bench(models, **given).cases
    free, ladder = (row["paired_rmse"] for row in found["index"].rows[:2])
    assert free > 0
    assert ladder > 0
    assert free != ladder
    assert all(row["paired_rmse"] is None for row in found["rounded_index"].rows)
    cells = {name: Findings.read(one.folder) for name, one in found.items()}
    drawn = {name: [f.samples(cell) for cell in f.done[:2]] for name, f in cells.items()}
    assert torch.equal(drawn["index"][1], drawn["rounded_index"][1])
    assert torch.equal(*drawn["rounded_index"])
    assert not torch.equal(*drawn["index"])


def test_the_cell_of_an_own_sampler_that_changed_is_refused(model, tmp_path, monkeypatch):
    given = QUICK | {"samplers": [Own()], "nfe": 5, "shape": (2,), "out": tmp_path / "out"}
    scoresde.bench(model, **given)
    monkeypatch.setattr(Own, "step", lambda self, model, x, t, s, state, noise: (x, None))
    with pytest.raises(ValueError, match="holds results of Own log_snr NFE ≤ 5 on another grid"):
        scoresde.bench(model, **given)


def test_results_of_a_model_of_unknown_content_are_not_used_again(model, tmp_path):
    generator = torch.Generator().manual_seed(0)
    noisy = scoresde.FunctionScore(
        VP(), lambda x, t: model.eps(x, t) + 0 * torch.rand(1, generator=generator).to(x)
    )
    with pytest.warns(UserWarning, match="a Generator, is not known; .* none are used again"):
        scoresde.bench(noisy, **QUICK, shape=(2,), out=tmp_path / "out")
    with (
        pytest.warns(UserWarning, match="none are used again"),
        pytest.raises(ValueError, match="results made from another model"),
    ):
        scoresde.bench(noisy, **QUICK, shape=(2,), out=tmp_path / "out")


def test_every_form_of_data_is_the_same_data(model, tmp_path):
    x = model.sample(60, seed=3).float()
    np.save(tmp_path / "x.npy", x.numpy())
    spec = DataSpec((2,), float(x.min()), float(x.max()))
    forms = [x, x.numpy(), x.double(), tmp_path / "x.npy", Dataset("x", x, None, spec)]
    found = [both_splits(data, None, None) for data in forms]
    assert len({train.fingerprint for train, _ in found}) == 1
    assert {test for _, test in found} == {None}
    train, test = both_splits("digits", None, None)
    assert (train.split, test.split) == ("train", "test")


def test_test_data_give_the_floor_and_the_likelihood(model, tmp_path):
    x = model.sample(60, seed=3)
    found = scoresde.bench(
        model, **QUICK, data=x[:40], test=x[40:], likelihood=4, out=tmp_path / "test"
    )
    assert "20 rows of the test split" in found.summary or "8 rows of the test" in found.summary
    about = json.loads((found.folder / "likelihood" / "summary.json").read_text())
    rows = np.load(found.folder / "likelihood" / "per_image.npz")
    wanted = model.log_prob(x[40:][rows["row"]].double())
    assert np.allclose(rows["log_prob"], wanted, atol=0.01)  # p_1 of this VP is not quite N(0, I)
    assert about["of"] == 20


def test_levels_are_those_of_the_model(tmp_path):
    """A model that knows its data takes levels, and refuses numbers at its own scale."""
    spec = DataSpec((2,), -1.0, 1.0, levels=4)
    given = GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [0.1])
    given.data = spec
    levels = torch.randint(0, 4, (30, 2), generator=torch.Generator().manual_seed(0))
    found = scoresde.bench(given, **QUICK, data=levels, likelihood=2, out=tmp_path / "out")
    assert "bits/dim" in found.summary
    with pytest.raises(ValueError, match=r"data must hold the integer levels 0 … 3"):
        scoresde.bench(given, **QUICK, data=spec.encode(levels), out=tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_several_models_have_a_folder_each_and_a_common_table(model, tmp_path, never_drawn):
    out = tmp_path / "out"
    models = {"exact": model, "wide": GaussianMixture(VP(), [1.0], [[0.0, 0.0]], [4.0])}
    found = scoresde.bench(models, **QUICK, shape=(2,), out=out)
    assert list(found.cases) == ["exact", "wide"]
    assert [row["model"] for row in found.rows] == ["exact"] * 2 + ["wide"] * 2
    page = (out / "index.html").read_text(encoding="utf-8")
    for name in models:
        assert f'href="{name}/report.html"' in page
        assert (out / name / "report.html").is_file()
    check_whole(out)
    with open(out / "results.csv", newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [float(row["paired_rmse"]) for row in table] == [r["paired_rmse"] for r in found.rows]
    never_drawn()
    assert scoresde.bench(models, **QUICK, shape=(2,), out=out) == found
    with pytest.raises(ValueError, match="holds results of wide, which is not asked for now"):
        scoresde.bench({"exact": model, "new": models["wide"]}, **QUICK, shape=(2,), out=out)


class Conditional(nn.Module):
    """Predicts ε of N(y, I) in closed form: x_t ~ N(α y, I) under VP, so that ε = σ (x − α y)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x, t, y):
        sde = VP()
        alpha, sigma = (f(t.double()).to(x)[:, None] for f in (sde.alpha, sde.sigma))
        return self.scale * sigma * (x - alpha * y)


def test_a_condition_reaches_the_samples(tmp_path):
    """The ODE of N(y, I) carries x_T to y + x_T; the last denoising then gives y + α x_T."""
    wrapped = scoresde.wrap(Conditional(), VP(), "eps", label="time")
    y = torch.tensor([[3.0, -2.0]])
    found = scoresde.bench(wrapped, **QUICK, shape=(2,), y=y, out=tmp_path / "out")
    key = next((tmp_path / "out" / "cells").glob("ddim*.npz"))
    x = torch.from_numpy(np.load(key)["x"])
    start = torch.from_numpy(np.load(found.folder / "start.npz")["x_init"])
    assert float((x - y - start).abs().mean()) < 0.7  # 3 steps; |y| is 3
    with pytest.raises(ValueError, match="y must have leading dimension 8"):
        scoresde.bench(wrapped, **QUICK, shape=(2,), y=torch.ones(3, 2), out=tmp_path / "no")


def test_samples_have_the_conditions_of_the_data_whose_shares_cannot_be_chosen(tmp_path):
    model = NetworkScore(MLP((2,), width=8, vector=2), VP())
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    data = Dataset("pairs", x, x + 1, DataSpec((2,), -4, 4, vector=2))
    what = dict(QUICK, data=data)
    with pytest.raises(ValueError, match="labels must be shares, got uniform: MLP takes a vector"):
        scoresde.bench(model, **what, labels="uniform", out=tmp_path / "no")
    assert not (tmp_path / "no").exists()
    scoresde.bench(model, **what, out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "every class has" not in page


def test_a_function_of_a_float32_network_needs_no_float64(tmp_path):
    net = nn.Linear(2, 2)
    function = scoresde.FunctionScore(VP(), lambda x, t: net(x))
    found = scoresde.bench(function, **QUICK, shape=(2,), out=tmp_path / "out")
    assert found.rows[0]["paired_rmse"] > 0
    assert found.rows[0]["nfe"] == 4
    assert not LiveModel("f", function, DataSpec((2,), -1, 1)).doubles
    x = torch.randn(12, 2, generator=torch.Generator().manual_seed(0))
    assert scoresde.likelihood_report(function, x, out=tmp_path / "bits", n=4)["mean"] is not None


def test_a_model_in_memory_is_never_changed(model):
    network = scoresde.wrap(Conditional().half(), VP(), "eps", label="time")
    live = LiveModel("n", network, DataSpec((2,), -1, 1))
    assert next(live.build(dtype="float64").parameters()).dtype == torch.float64
    assert next(network.parameters()).dtype == torch.float16
    assert live.build() is network


def test_numbers_of_numpy_are_numbers_and_the_scale_of_data_is_checked(model, tmp_path):
    numbers = {"nfe": np.arange(4, 5), "n": np.int64(8), "device": torch.device("cpu")}
    x = 200 + 50 * model.sample(20, seed=0)
    with pytest.warns(UserWarning, match="the data of data are too large for the SDE"):
        found = scoresde.bench(model, **QUICK | numbers, data=x, out=tmp_path / "out")
    assert found.rows[0]["nfe"] == 4


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({}, ValueError, "shape must be given"),
        ({"shape": (2,), "samplers": [3]}, TypeError, "sampler must be of type Sampler, got int"),
        ({"shape": (2,), "samplers": "ddmi"}, ValueError, r"'ddmi' is unknown; did you mean ddim"),
        ({"shape": (2,), "grids": [print, 3]}, TypeError, "grid .* must be a text, a function or"),
        ({"shape": (2,), "nfe": 0}, ValueError, "nfe must be at least 1, got 0"),
        ({"shape": (2,), "nfe": "5,10"}, TypeError, "nfe must be an integer, got '5,10'"),
        ({"shape": (2,), "nfe": [5.0]}, TypeError, "nfe must be an integer, got 5.0"),
        ({"shape": (2,), "device": "mps"}, ValueError, r"cuda:N \(mps has no float64\), got 'mps'"),
        ({"shape": (2,), "device": "cuda:99"}, ValueError, "CUDA devices, got 'cuda:99'"),
        (
            {"model": scoresde.FunctionScore(VP(), needs_y), "shape": (2,)},
            RuntimeError,
            r"model needs_y cannot be evaluated on x of shape \(2, 2\) without a condition; "
            "give y, or to wrap the number of classes: ",
        ),
        ({"shape": (2,), "test": torch.ones(9, 2)}, ValueError, "test needs data"),
        ({"shape": (2,), "likelihood": 3}, ValueError, "data must be given"),
        ({"data": torch.rand(30, 3), "shape": (2,)}, ValueError, r"shape must be \(3,\)"),
        (
            {"data": torch.rand(30, 2), "likelihood": 31},
            ValueError,
            "likelihood must be at most 30",
        ),
        ({"data": "no-such"}, ValueError, "unknown data set 'no-such'"),
        ({"model": nn.Linear(2, 2)}, TypeError, "wrap a network with scoresde.wrap"),
        ({"model": []}, ValueError, "model must be at least one model"),
        ({"model": {"a/b": 1}}, ValueError, "names become folders"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(model, tmp_path, changes, error, message):
    given = {"model": model, **QUICK, "out": tmp_path / "out"} | changes
    with pytest.raises(error, match=message):
        scoresde.bench(given.pop("model"), **given)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["digits-vp", "digits-vp"], "checkpoint digits-vp is given twice"),
        (["a=digits-vp", "a=digits-ve"], "checkpoint a=digits-ve: the name a is given twice"),
    ],
)
def test_a_model_that_is_given_twice_is_no_second_case(models, message):
    with pytest.raises(ValueError, match=message):
        named_models(models)
