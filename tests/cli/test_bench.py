"""`scoresde bench` and `scoresde report`."""

import csv
import json
import re
import shlex
from html import unescape

import numpy as np
import pytest
import torch

from scoresde.comparison import quality
from scoresde.comparison import report as report_module
from scoresde.comparison import sweep as sweep_module
from scoresde.comparison.case import prepare_case
from scoresde.comparison.plots import Drawn
from scoresde.comparison.request import BenchRequest
from scoresde.data import load_dataset
from scoresde.metrics import sliced_wasserstein
from scoresde.names.samplers import parse_sampler

pytestmark = pytest.mark.usefixtures("quick")

SMALL = ("--samplers", "ddim,heun,ancestral", "--nfe", "3,6", "--n", 8)


@pytest.fixture
def quick(monkeypatch):
    """No figures, no reference solution, one run per cell, few projections and real data."""
    monkeypatch.setattr("scoresde.comparison.measure.RUNS", 1)
    monkeypatch.setattr("scoresde.comparison.measure.PASSES", 1)
    for name, value in (("COUNT", 2), ("LEAST", 8), ("NUMBERS", 64)):
        monkeypatch.setattr(f"scoresde.comparison.noise_levels.{name}", value)
    monkeypatch.setattr("scoresde.comparison.trajectory.TOLERANCE", 1e-2)
    monkeypatch.setitem(BenchRequest.__init__.__kwdefaults__, "reference_tolerance", None)
    monkeypatch.setitem(sliced_wasserstein.__kwdefaults__, "projections", 16)
    monkeypatch.setattr(quality, "REFERENCE_CAP", 200)
    for name in ("save_budget", "extremes"):
        monkeypatch.setattr(f"scoresde.tasks.likelihood.files.{name}", lambda path, *_: None)
    drawn = Drawn(b"<svg ></svg>", b"")
    monkeypatch.setattr(report_module, "curves", lambda *_: drawn)
    for measured in (report_module.Trajectories, report_module.NoiseLevels):
        monkeypatch.setattr(measured, "figure", drawn)


@pytest.fixture
def reference(quick, monkeypatch):
    """A coarse reference solution: an accurate one would take a thousand evaluations."""
    monkeypatch.setitem(BenchRequest.__init__.__kwdefaults__, "reference_tolerance", 1e-2)


@pytest.fixture
def bench(scoresde, latest, tiny_checkpoint, tmp_path):
    """bench("--n", 4): run the command with a new folder; return its path and the output."""

    def call(*options, checkpoint=tiny_checkpoint, out=tmp_path / "out"):
        return out, scoresde(*latest("bench", "--checkpoint", checkpoint, "--out", out, *options))

    return call


def rows(folder):
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("reference", "coarse_likelihood")
def test_a_comparison_from_start_to_report(bench, scoresde, monkeypatch):
    out, done = bench(*SMALL, "--likelihood", 2)
    assert done.status == 0, done.err
    assert done.out.splitlines()[-1] == str(out / "report.html")
    assert done.out.splitlines()[0].split()[:4] == ["sampler", "grid", "asked", "NFE"]
    table = rows(out)
    assert [(r["sampler"], r["nfe_asked"], r["nfe"]) for r in table] == [
        *(("ddim", "3", "3"), ("ddim", "6", "6")),
        *(("heun", "3", "3"), ("heun", "6", "5")),
        *(("ancestral", "3", "3"), ("ancestral", "6", "6")),
        *(("recommended", "3", "3"), ("recommended", "6", "6")),
    ]
    assert all(bool(r["setting"]) is (r["sampler"] == "recommended") for r in table)
    page = (out / "report.html").read_text("utf-8")
    assert "The recommended settings are " in page
    assert "Where along the trajectory it arises" in page
    assert "on held-out data: " in page  # the error at each noise level
    assert len({r["x_init_sha256"] for r in table}) == 1
    assert all(r["features"].startswith("digits_cnn+layout_texture") for r in table)
    assert [bool(r["paired_rmse"]) for r in table] == [True] * 4 + [False] * 2 + [True] * 2
    found = json.loads((out / "results.json").read_text())
    assert found["likelihood"]["unit"] == "bits/dim"
    assert found["likelihood"]["std_error"] > 0
    assert "bits/dim" in (out / "report.html").read_text(encoding="utf-8")

    def run(*arguments, **others):
        raise AssertionError("the network was run")

    monkeypatch.setattr(sweep_module, "draw", run)
    before = (out / "results.csv").read_bytes()
    out, again = bench(*SMALL, "--likelihood", 2)
    assert again.status == 0, again.err
    assert again.out == done.out
    assert (out / "results.csv").read_bytes() == before
    (out / "report.html").unlink()
    rebuilt = scoresde("report", "--run", out)
    assert (rebuilt.status, rebuilt.out.strip()) == (0, str(out / "report.html"))
    assert (out / "report.html").exists()


def test_the_command_of_the_page_repeats_all_of_it(scoresde, tiny_checkpoint, tmp_path):
    """Two models with names, data by name, and an option of each kind that is not the default."""
    options = ("--samplers", "ddim:eta=0.5", "--nfe", 3, "--n", 4, "--seeds", 4, "--batch", 3)
    options += ("--grids", "uniform", "--t-min", "0.01,0.02", "--metrics", "mmd2")
    both = ("--checkpoint", f"A={tiny_checkpoint}", "--checkpoint", f"B={tiny_checkpoint}")
    out = tmp_path / "first"
    first = scoresde("bench", *both, *options, "--data", "digits", "--out", out)
    assert first.status == 0, first.err
    page = unescape((out / "index.html").read_text(encoding="utf-8"))
    words = shlex.split(re.search(r">scoresde (bench .*)</pre>", page).group(1))
    assert words[-2:] == ["--out", "first"]
    again = scoresde(*words[:-1], tmp_path / "again")
    assert again.status == 0, again.err
    timed = {"seconds", "seconds_low", "seconds_high", "seconds_bare", "memory"}
    one, other = (
        [{k: v for k, v in row.items() if k not in timed} for row in rows(folder)]
        for folder in (out, tmp_path / "again")
    )
    assert one == other
    assert len(one) == 2 * (2 + 1)
    case = unescape((out / "A" / "report.html").read_text(encoding="utf-8"))
    words = shlex.split(re.search(r">scoresde (bench .*)</pre>", case).group(1))
    assert {"--data", "digits", str(tiny_checkpoint), "4"} <= {*words}
    assert json.loads(scoresde(*words[:-1], tmp_path / "third", "--plan", "--json").out)
    before = {name: (out / name).read_bytes() for name in ("index.html", "results.md")}
    (out / "index.html").unlink()
    assert scoresde("report", "--run", out).status == 0
    assert {name: (out / name).read_bytes() for name in before} == before


def test_json_is_for_machines(bench):
    out, done = bench("--samplers", "ddim", "--nfe", 3, "--n", 4, "--json")
    assert done.status == 0, done.err
    printed = json.loads(done.out)
    assert printed == json.loads((out / "results.json").read_text())
    assert [cell["nfe"] for cell in printed["cells"]] == [3, 3]


def test_conditional_models_draw_the_classes_of_the_training_data(bench, labelled_checkpoint):
    options = ("--samplers", "ddim", "--nfe", 3, "--n", 8)
    out, done = bench(*options, checkpoint=labelled_checkpoint)
    assert done.status == 0, done.err
    assert rows(out)[0]["status"] == "done"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "every class has its share of the training data" in page
    assert "--labels shares" in page
    _, changed = bench(*options, "--labels", "uniform", checkpoint=labelled_checkpoint)
    assert changed.status == 2
    assert "labels" in changed.err


def test_labels_of_a_comparison(labelled_checkpoint, tmp_path):
    """Without data, as for the strips of the demonstration, every class has the same share."""

    def prepared(n, **options):
        what = {"checkpoint": labelled_checkpoint, "samplers": ["ddim"], "nfe": [3]}
        request = BenchRequest(**what, n=n, quality=False, **options)
        found = prepare_case(request, tmp_path / "out")
        return found.sweep.settings.y, found.results.origin.settings["labels"]

    counts = torch.bincount(load_dataset("digits").labels)
    y, how = prepared(150, likelihood=2)
    assert float((torch.bincount(y) - 150 * counts / counts.sum()).abs().max()) < 1
    assert how == "shares"
    y, how = prepared(150, likelihood=2, labels="uniform")
    assert torch.bincount(y).tolist() == [15] * 10
    assert how == "uniform"
    y, how = prepared(20)
    assert y.tolist() == [*range(10), *range(10)]
    assert how == "uniform"
    with pytest.raises(ValueError, match="labels must be one of shares, uniform, got 'all'"):
        prepared(12, labels="all")


@pytest.mark.slow
def test_points_in_the_plane(bench, points_checkpoint):
    out, done = bench(
        *("--samplers", "ddim", "--nfe", 4, "--n", 16, "--likelihood", 4),
        checkpoint=points_checkpoint,
    )
    assert done.status == 0, done.err
    assert {r["features"].split("@")[0] for r in rows(out)} == {"layout_pairs"}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Scatter plot: ddim" in page
    assert "nats/dim" in page


def test_a_skipped_cell_is_listed_with_its_reason(bench):
    out, done = bench("--samplers", "ddim,annealed-langevin", "--nfe", 3, "--n", 4)
    assert done.status == 0, done.err
    reason = "one step takes 201 evaluations with the final denoising"
    assert done.out.splitlines()[-2].endswith(f"annealed-langevin log_snr NFE ≤ 3: {reason}")
    assert [r["status"] for r in rows(out)] == ["done", "skipped", "done"]


def test_grids_with_parameters_and_from_files(bench, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text("[1, 0.4, 0.001]")
    options = ("--samplers", "ddim", "--grids", f"karras:rho=3,{path}", "--nfe", "3,6", "--n", 4)
    out, done = bench(*options)
    assert done.status == 0, done.err
    named = [r for r in rows(out) if r["sampler"] == "ddim"]
    assert [(r["grid"], r["nfe_asked"], r["nfe"]) for r in named] == [
        *(("karras:rho=3", "3", "3"), ("karras:rho=3", "6", "6")),
        (str(path), "3", "3"),
    ]
    assert str(path) in (out / "report.html").read_text(encoding="utf-8")
    path.write_text("[1, 0.3, 0.001]")
    _, changed = bench(*options)
    assert changed.status == 2
    assert f"holds results of ddim {path} NFE ≤ 3 on another grid" in changed.err


@pytest.mark.usefixtures("reference")
def test_rounded_labels_move_the_grids_and_it_says_so(bench, snapped_checkpoint):
    out, done = bench(
        *("--samplers", "ddim,edm,dopri5", "--nfe", 4, "--n", 4), checkpoint=snapped_checkpoint
    )
    assert done.status == 0, done.err
    assert "grids are moved to its discrete times" in done.out
    assert "grids are moved to its discrete times" in (out / "report.html").read_text("utf-8")
    table = rows(out)
    assert [(r["sampler"], r["status"]) for r in table if r["sampler"] != "recommended"] == [
        ("ddim", "done"),
        ("edm", "skipped"),
        *[("dopri5", "skipped")] * 4,
    ]
    assert table[0]["paired_rmse"] == ""
    assert "skipped: edm log_snr NFE ≤ 4: it evaluates the model between the times" in done.out
    settings = json.loads((out / "scoresde.json").read_text())["settings"]
    assert (settings["snapped"], settings["t_min"]) == (True, 0.02)


def test_other_settings_in_the_folder_are_refused_and_replaced_on_demand(bench):
    one = ("--samplers", "ddim", "--nfe", 3, "--n", 4)
    out, done = bench(*one)
    assert done.status == 0, done.err
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    _, refused = bench(*one, "--seeds", 1)
    assert refused.status == 2
    assert "holds results with seed = 0, not 1" in refused.err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    _, replaced = bench(*one, "--seeds", 1, "--overwrite")
    assert replaced.status == 0, replaced.err
    assert json.loads((out / "scoresde.json").read_text())["settings"]["seed"] == 1


def test_a_likelihood_that_cannot_be_is_refused_at_once(bench, snapped_checkpoint):
    options = ("--samplers", "ancestral", "--nfe", 3, "--n", 4, "--likelihood", 2)
    out, done = bench(*options, checkpoint=snapped_checkpoint)
    assert done.status == 2
    assert "rounded labels" in done.err
    assert "sampling" not in done.err
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("coarse_likelihood")
def test_results_below_that_nobody_asks_for_go_with_the_others(bench):
    one = ("--samplers", "ddim", "--nfe", 3, "--n", 4)
    out, done = bench(*one, "--likelihood", 2)
    assert done.status == 0, done.err
    (out / "likelihood" / "notes.txt").write_text("mine")
    assert bench(*one, "--overwrite")[1].status == 0
    assert [path.name for path in (out / "likelihood").iterdir()] == ["notes.txt"]


@pytest.mark.slow
@pytest.mark.usefixtures("reference")
def test_a_report_of_somebody_else_is_not_replaced(bench, monkeypatch):
    """The file appears while the comparison is stopped, after its reference was written."""
    one = ("--samplers", "ddim", "--nfe", "3,4", "--n", 4)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "draw", stopped)
        out, done = bench(*one)
    assert done.status == 130
    (out / "report.html").write_text("mine")
    refused = bench(*one)[1]
    assert refused.status == 2
    assert "holds report.html, which scoresde did not write" in refused.err
    assert (out / "report.html").read_text() == "mine"


OTHERS = ("results.json", "results.csv", "reference.npz", "scoresde.json")


def test_samplers_and_budgets_are_added_and_not_measured_again(bench, monkeypatch):
    out, done = bench("--samplers", "ddim", "--nfe", 3, "--n", 4)
    assert done.status == 0, done.err
    first, chosen = rows(out)
    real, sampled = sweep_module.draw, []

    def counted(settings, model, sampler, ts, **options):
        sampled.append(type(sampler).__name__)
        return real(settings, model, sampler, ts, **options)

    monkeypatch.setattr(sweep_module, "draw", counted)
    out, done = bench("--samplers", "heun,ddim", "--nfe", "3,4", "--n", 4)
    assert done.status == 0, done.err
    recommended = type(parse_sampler(rows(out)[-1]["setting"])).__name__
    # heun is EDM without churn
    assert sorted(sampled) == sorted(["DDIM", "EDM", "EDM", recommended])
    assert [(r["sampler"], r["nfe_asked"]) for r in rows(out)] == [
        *(("heun", "3"), ("heun", "4"), ("ddim", "3"), ("ddim", "4")),
        *(("recommended", "3"), ("recommended", "4")),
    ]
    assert (rows(out)[2], rows(out)[4]) == (first, chosen)
    _, refused = bench("--samplers", "heun", "--nfe", "3,4", "--n", 4)
    assert refused.status == 2
    assert "holds results of ddim log_snr NFE ≤ 3, which is not asked for now" in refused.err


@pytest.mark.slow
def test_a_stopped_overwrite_leaves_the_old_results_and_goes_on(bench, monkeypatch):
    one = ("--samplers", "ddim", "--nfe", "3,4", "--n", 4)
    out, first = bench(*one)
    assert first.status == 0, first.err
    before = {p: p.read_bytes() for p in out.rglob("*") if p.name.endswith((".csv", ".npz"))}
    real, sampled = sweep_module.draw, []

    def stopped(settings, *arguments, **options):
        sampled.append(settings.seed)
        if len(sampled) == 2:
            raise KeyboardInterrupt
        return real(settings, *arguments, **options)

    monkeypatch.setattr(sweep_module, "draw", stopped)
    again = (*one, "--seeds", 1, "--overwrite")
    assert bench(*again)[1].status == 130
    assert bench(*one)[1].out == first.out
    assert {path: path.read_bytes() for path in before} == before
    out, done = bench(*again)
    assert done.status == 0, done.err
    assert sampled == [1] * 5
    assert len(list((out / "cells").iterdir())) == 4
    assert not (out / "parts").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("reference")
@pytest.mark.parametrize("damaged", ["cells/*", *OTHERS])
def test_damaged_results_are_made_again(bench, scoresde, damaged):
    one = ("--samplers", "ddim", "--nfe", 3, "--n", 4)
    out, first = bench(*one)
    path = min(out.glob(damaged))
    path.write_bytes(path.read_bytes()[:-50])
    if damaged == "scoresde.json":
        _, refused = bench(*one)
        assert refused.status == 2
        assert "scoresde.json is damaged" in refused.err
        _, again = bench(*one, "--overwrite")
    else:
        told = scoresde("report", "--run", out)
        assert told.status == 2
        assert f"{path} is missing or damaged" in told.err
        with pytest.warns(UserWarning, match="damaged"):
            _, again = bench(*one)
    assert again.status == 0, again.err
    table = [re.sub(r" +[\d.]+\n", "\n", done.out) for done in (first, again)]
    assert table[0] == table[1]  # all but the seconds, which are the last column


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samplers", "ddmi"], r"sampler 'ddmi' is unknown; did you mean ddim\?"),
        (["--samplers", "ddim,"], r"--samplers: 'ddim,' has an empty entry"),
        (["--samplers", "ddim,ddim"], r"sampler ddim is given twice"),
        (["--samplers", "ddim:eta=2"], r"sampler ddim: eta must be at most 1, got 2"),
        (["--samplers", "dopri5:rtol=1e-3"], r"leave rtol and atol out"),
        (["--samplers", "annealed-langevin", "--nfe", "5"], r"no cell can run: .* 201 evaluations"),
        (["--grids", "log-snr"], r"grid 'log-snr' is unknown; did you mean log_snr\?"),
        (["--grids", "karras:rho=0"], r"grid karras: rho must be greater than 0, got 0"),
        (["--grids", "none.json"], r"none.json: no such file"),
        (["--grids", "uniform,uniform"], r"grid uniform is given twice"),
        (["--nfe", "5,0"], r"--nfe: 0 is not an integer at least 1"),
        (["--nfe", "5,1.5"], r"--nfe: '?1.5'? is not an integer"),
        (["--nfe", "abc"], r"--nfe: 'abc' is not an integer"),
        (["--nfe", "5,5"], r"nfe 5 is given twice"),
        (["--n", "3"], r"--n: 3 is not an integer at least 4"),
        (
            ["--n", "1000000000"],
            r"--n: 1000000000 is not an integer at least 4 and at most 1000000",
        ),
        (["--seeds", "-1"], r"--seeds: -1 is not an integer"),
        (["--batch", "0"], r"--batch: 0 is not an integer at least 1"),
        (["--t-min", "0"], r"--t-min: 0 is not a number above 0"),
        (["--t-min", "1"], r"--t-min: 1 is not a number"),
        (["--t-min", "nan"], r"--t-min: nan is not a number"),
        (["--likelihood", "298"], r"likelihood must be at most 297, got 298"),
        (["--likelihood", "-1"], r"--likelihood: -1 is not an integer at least 0"),
        (["--device", "cuda:99"], r"--device: 'cuda:99' is not here"),
        (["--checkpoint", "digits-pv"], r"neither a file nor a shipped checkpoint"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(bench, options, message):
    out, done = bench(*options)
    assert done.status == 2
    assert re.search(message, done.err), done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "tolerances"),
    [
        ("dopri5", ["0.01", "0.001", "0.0001", "1e-05"]),
        ("gotta-go-fast", ["0.2", "0.1", "0.05", "0.02"]),
    ],
)
def test_an_adaptive_method_alone(bench, sampler, tolerances):
    out, done = bench("--samplers", sampler, "--n", 4)
    assert done.status == 0, done.err
    own, recommended = (
        [r for r in rows(out) if r["sampler"] == s] for s in (sampler, "recommended")
    )
    assert [r["tolerance"] for r in own] == tolerances
    assert [r["nfe_asked"] for r in own] == [""] * 4
    assert [r["tolerance"] for r in recommended] == [""] * 4


def test_a_file_in_the_way_is_named(bench, tmp_path):
    (tmp_path / "file").write_text("mine")
    _, done = bench("--samplers", "ddim", out=tmp_path / "file" / "out")
    assert done.status == 2
    assert "is there already, and is a file" in done.err


def test_data_without_a_test_split_have_no_likelihood(bench, wide_checkpoint):
    out, done = bench("--likelihood", 2, checkpoint=wide_checkpoint)
    assert done.status == 2
    assert "these data have no test split" in done.err
    assert not out.exists()


def test_report_of_something_else(scoresde, tmp_path):
    done = scoresde("report", "--run", tmp_path)
    assert done.status == 2
    assert "holds no results.json of `scoresde bench`" in done.err
    assert scoresde("report", "--run", tmp_path / "none").status == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("before", "after", "name"),
    [
        ([[0.0, 1.0]] * 9, [[0.0, 2.0]] * 9, "high"),
        ([[0.0, 1.0]] * 9, [[-1.0, 1.0]] * 9, "low"),
        ([[0.0, 1.0]] * 9, np.array([[0, 1]] * 9, np.uint8), "levels"),
        ([[0.0, 1.0]] * 9, [[0.0, 0.5, 1.0]] * 9, "shape"),
    ],
)
def test_data_of_another_kind_than_in_training_are_refused(
    bench, write_checkpoint, tmp_path_factory, before, after, name
):
    """Metrics against such data would not measure the model."""
    folder = tmp_path_factory.mktemp("changed")
    np.save(folder / "data.npy", before)
    config = {
        "data": {"name": str(folder / "data.npy")},
        "net": {"kind": "mlp", "width": 4, "depth": 1},
    }
    checkpoint = write_checkpoint(folder / "run", **config)
    np.save(folder / "data.npy", after)
    out, done = bench("--samplers", "ddim", "--nfe", 3, "--n", 4, checkpoint=checkpoint)
    assert done.status == 2
    assert f"has changed since training: {name} " in done.err
    assert not out.exists()
