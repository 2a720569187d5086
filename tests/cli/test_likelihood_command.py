"""`scoresde likelihood`."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

import scoresde as library
from scoresde.likelihood import (
    Dequantized,
    Hutchinson,
    Ode,
    Path,
    dequantize,
    fit_gaussian,
    likelihood_budget,
    log_likelihood,
)
from scoresde.noise import SampleNoise
from scoresde.tasks.likelihood import scoring
from scoresde.tasks.likelihood.request import PROTOCOLS
from scoresde.tasks.likelihood.scoring import ScoreRequest, score_data

# A late first time and coarse settings take some twenty evaluations.
T_MIN = ("--t-min", 0.5)
PATH = ("--method", "path", "--steps", 2, "--nodes", 4, "--trace", "hutchinson:probes=2")
COARSE = {"rtol": 0.05, "atol": 0.05}
SOLVER = ("--method", "dopri5", "--rtol", 0.05, "--atol", 0.05)
UNMEASURED = ("--measured", 0)


def rows(folder):
    with (folder / "per_image.csv").open(newline="") as file:
        return [
            {key: value if key == "status" else float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def arrays(folder):
    with np.load(folder / "per_image.npz", allow_pickle=False) as file:
        return dict(file)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture
def pictures():
    """Asks for the pictures to be drawn."""


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Fit the Gaussian to 100 data, and draw no pictures unless a test asks for `pictures`."""
    monkeypatch.setattr("scoresde.tasks.likelihood.method.FITTED", 100)
    if "pictures" not in request.fixturenames:
        for name in ("save_budget", "extremes"):
            monkeypatch.setattr(f"scoresde.tasks.likelihood.files.{name}", lambda path, *_: None)


@pytest.fixture
def score(scoresde, latest, tiny_checkpoint, tmp_path):
    """score(PATH, "--n", 4) scores into a new folder; returns its path and the output."""

    def call(method, *options, checkpoint=tiny_checkpoint, out=tmp_path / "out"):
        arguments = ("--checkpoint", checkpoint, "--out", out, *T_MIN, *method, *options)
        return out, scoresde("likelihood", *latest(*arguments))

    return call


class TestIsTheLibrary:
    def test_the_path(self, score, tiny_checkpoint):
        """Each batch is `likelihood_budget` of its rows with their own streams."""
        out, done = score(PATH, "--n", 5, "--batch", 3, "--draws", 2, "--seed", 4, *UNMEASURED)
        assert done.status == 0, done.err
        checkpoint, test = library.load(tiny_checkpoint), library.load_dataset("digits", "test")
        train = library.load_dataset("digits").x[:100]
        far = SampleNoise(4, range(2**63, 2**63 + len(train)))
        points = dequantize(train, checkpoint.data, far, torch.float64)
        control = fit_gaussian(checkpoint.model.sde, points)
        path = Path(2, 4, Hutchinson(probes=2), control=control, t_min=0.5)
        method = Dequantized(checkpoint.data, path, draws=2)
        found, per_bit = arrays(out), 64 * math.log(2)
        for part in (slice(0, 3), slice(3, 5)):
            wanted = likelihood_budget(
                checkpoint.model,
                test.x[found["row"][part]],
                method,
                control=control,
                noise=SampleNoise(4, range(5)[part]),
            )
            for name in ("log_prob", "nfe", "nfe_derivative"):
                assert np.array_equal(found[name][part], getattr(wanted, name).numpy())
            for name in ("std_error", "probe_error", "draw_error"):
                assert np.array_equal(found[name][part], getattr(wanted, name).numpy() / per_bit)
            for name in ("correction", "cut_off", "prior_mismatch"):
                expected = -getattr(wanted, name).numpy() / per_bit  # NaN: a cut-off not known
                assert np.array_equal(found[name][part], expected, equal_nan=True)
            assert np.array_equal(found["half_width"][part], wanted.half_width().numpy() / per_bit)

    @pytest.mark.slow  # a C++ compiler runs
    def test_a_compiled_network(self, score, points_checkpoint, tmp_path, monkeypatch):
        """The same dequantization, path and probes, also in a last batch that is filled up."""
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
        options = ("--n", 5, "--batch", 3, *UNMEASURED)
        found = []
        for compiled in ((), ("--compile",)):
            out = tmp_path / f"out{len(compiled)}"
            _, done = score(PATH, *options, *compiled, checkpoint=points_checkpoint, out=out)
            assert done.status == 0, done.err
            assert "runs without it" not in done.err
            found.append(arrays(out))
        # Both round in float32, 1e-7 of each number, and a path of 2 steps adds up few of them.
        assert found[1]["log_prob"] == pytest.approx(found[0]["log_prob"], rel=1e-4, abs=1e-4)
        assert np.array_equal(found[1]["row"], found[0]["row"])

    @pytest.mark.slow
    def test_a_solver(self, score, tiny_checkpoint):
        """Each batch is `log_likelihood` of its rows."""
        trace = ("--trace", "hutchinson:probes=2")
        more = ("--n", 5, "--batch", 3, "--seed", 4)
        out, done = score(SOLVER, *trace, *more, *UNMEASURED)
        assert done.status == 0, done.err
        found = rows(out)
        checkpoint, test = library.load(tiny_checkpoint), library.load_dataset("digits", "test")
        solver = Ode(**COARSE, trace=Hutchinson(probes=2), t_min=0.5)
        for part in (slice(0, 3), slice(3, 5)):
            chosen = [int(row["row"]) for row in found[part]]
            wanted = log_likelihood(
                checkpoint.model,
                test.x[chosen],
                Dequantized(checkpoint.data, solver),
                noise=SampleNoise(4, range(5)[part]),
            )
            assert [row["bits_per_dim"] for row in found[part]] == pytest.approx(
                wanted.bits_per_dim(checkpoint.data).tolist(), rel=1e-12
            )
            assert {row["nfe"] for row in found[part]} == {wanted.nfe}


class TestWhatItSays:
    def test_mean_and_standard_error_are_those_of_the_rows(self, score):
        out, done = score(PATH, "--n", 6, *UNMEASURED)
        values = np.array([row["bits_per_dim"] for row in rows(out)])
        mean, error = values.mean(), values.std(ddof=1) / math.sqrt(6)
        assert done.out.startswith(f"{mean:.4f} ± {error:.2g} bits/dim   pf-ode/uniform\n")
        # sums in another order
        assert summary(out)["mean"] == pytest.approx(mean, rel=1e-12)
        assert summary(out)["std_error"] == pytest.approx(error, rel=1e-12)
        assert np.array_equal(arrays(out)["bits_per_dim"], values)

    def test_the_protocol_in_words(self, score):
        out, done = score(PATH, "--n", 2, "--draws", 2, "--budget", *UNMEASURED)
        table = (out / "budget.txt").read_text()
        assert done.out.startswith(table)
        for part in (
            "2 of 297 in digits (test), 64 dimensions, 17 levels, draws per datum: 2",
            "path of 2 steps, corrected; divergence at 4 nodes",
            "Hutchinson(probe='rademacher', probes=2)",
            "t_min = 0.5",
        ):
            assert part in table, part

    def test_without_budget_only_the_head_is_printed(self, score):
        out, done = score(PATH, "--n", 2, *UNMEASURED)
        head, files, rest = done.out.split("\n")
        assert head == (out / "budget.txt").read_text().split("\n")[0]
        assert str(out / "per_image.csv") in files
        assert rest == ""

    def test_json(self, score):
        out, done = score(PATH, "--n", 2, "--json", *UNMEASURED)
        assert json.loads(done.out) == summary(out)

    @pytest.mark.usefixtures("pictures")
    def test_files(self, score):
        out, _ = score(PATH, "--n", 3, *UNMEASURED)
        names = ["budget.png", "budget.txt", "extremes.png", "per_image.csv", "per_image.npz"]
        assert sorted(p.name for p in out.iterdir()) == [*names, "scoresde.json", "summary.json"]
        for name in ("budget.png", "extremes.png"):
            with Image.open(out / name) as picture:
                assert min(picture.size) > 100
        for name, column in arrays(out).items():
            texts = [str(row[name]) for row in rows(out)]
            assert [str(v) if name == "status" else str(float(v)) for v in column] == texts

    def test_a_coarse_path_is_marked(self, score):
        out, _ = score(PATH[:2], "--n", 2, "--steps", 1, "--nodes", 8, *UNMEASURED)
        coarse = [abs(row["correction"]) > 0.1 for row in rows(out)]
        assert [row["status"] == "coarse" for row in rows(out)] == coarse


class TestBudget:
    def test_from_the_rows(self, score):
        """Every number of the table follows from those of the images, by numpy."""
        out, done = score(PATH, "--n", 6, "--draws", 2, *UNMEASURED)
        assert done.status == 0, done.err
        found, budget = arrays(out), summary(out)["budget"]
        error = found["bits_per_dim"].std(ddof=1) / math.sqrt(6)
        probes, drawn = (
            math.sqrt((found[name] ** 2).sum()) / 6 for name in ("probe_error", "draw_error")
        )
        wanted = {
            "value": found["bits_per_dim"].mean(),
            "std_error": error,
            "probe_error": probes,
            "draw_error": drawn,
            "set_error": math.sqrt(max(error**2 - probes**2 - drawn**2, 0)),
            "cut_off": found["cut_off"].mean(),
            "prior_mismatch": found["prior_mismatch"].mean(),
            "half_width": stats.t.ppf(0.975, 5) * error,
            "nfe": found["nfe"].mean(),
            "nfe_derivative": 2 * 4 * 2,  # draws × nodes × probes
        }
        for name, value in wanted.items():
            known = None if math.isnan(value) else pytest.approx(value, rel=1e-9)
            assert budget[name] == known, name
        assert (budget["solver"], budget["rounding"], budget["n"]) == (None, None, 6)

    @pytest.mark.slow
    def test_solver_and_rounding_are_measured(self, score, tmp_path):
        """The summary states the change of the values with finer tolerances and with float64."""
        alone = ("--method", "dopri5", "--per-sample", "--trace", "hutchinson:probes=2", "--n", 4)
        coarse = ("--rtol", 0.05, "--atol", 0.05, *UNMEASURED)
        fine = ("--rtol", 0.005, "--atol", 0.005, *UNMEASURED)
        plain, _ = score(alone, *coarse, out=tmp_path / "plain")
        finer, _ = score(alone, *fine, out=tmp_path / "finer")
        exact, _ = score(alone, *coarse, "--dtype", "float64", out=tmp_path / "exact")
        out, done = score(alone, *coarse[:-1], 3)
        assert done.status == 0, done.err
        budget, found = summary(out)["budget"], arrays(out)
        assert np.array_equal(found["bits_per_dim"], arrays(plain)["bits_per_dim"])
        solver, rounding = (
            (arrays(other)["bits_per_dim"] - arrays(plain)["bits_per_dim"])[:3]
            for other in (finer, exact)
        )
        # a float32 network rounds otherwise in a batch of 3 than in one of 4: seen, 1e-6
        close = {"rel": 1e-3, "abs": 1e-5}
        assert budget["solver"] == pytest.approx(solver.mean(), **close)
        assert budget["solver_error"] == pytest.approx(solver.std(ddof=1) / math.sqrt(3), **close)
        assert budget["rounding"] == pytest.approx(rounding.mean(), **close)
        assert (budget["solver_n"], budget["rounding_n"]) == (3, 3)
        # 2 (1 + 8/3) root mean squares of 3 changes
        sizes = [22 / 3 * math.sqrt((change**2).mean()) for change in (solver, rounding)]
        assert found["half_width"] - arrays(plain)["half_width"] == pytest.approx(
            sum(sizes), **close
        )

    def test_rounding_is_measured_by_points_and_weights_of_float64(self, score, monkeypatch):
        """A float64 network with points rounded to float32 would not measure the rounding."""
        seen = []

        def watched(model, x, method, **arguments):
            points = []
            handle = model.net.register_forward_pre_hook(lambda net, given: points.append(given[0]))
            found = likelihood_budget(model, x, method, **arguments)
            handle.remove()
            single = all(torch.equal(x, x.float().to(x.dtype)) for x in points)
            seen.append((method.dtype, {x.dtype for x in points}, single))
            return found

        monkeypatch.setattr(scoring, "likelihood_budget", watched)
        _, done = score(PATH, "--n", 2, "--measured", 2)
        assert done.status == 0, done.err
        single, double = {torch.float32}, {torch.float64}
        assert seen == [
            (torch.float32, single, True),  # the data
            (torch.float32, single, True),  # with a finer solver
            (torch.float64, double, False),
        ]

    def test_float64_has_no_rounding_to_measure(self, score):
        out, _ = score(PATH, "--n", 2, "--measured", 2, "--dtype", "float64")
        budget = summary(out)["budget"]
        assert (budget["rounding"], budget["rounding_n"], budget["solver_n"]) == (None, 0, 2)

    def test_what_is_measured_widens_every_interval(self, score, tmp_path):
        plain, _ = score(
            *(PATH, "--n", 2, "--dtype", "float64"), *UNMEASURED, out=tmp_path / "plain"
        )
        out, _ = score(PATH, "--n", 2, "--measured", 2, "--dtype", "float64")
        budget = summary(out)["budget"]
        # of two numbers: their mean and the standard error of it
        size = math.hypot(budget["solver"], budget["solver_error"])
        assert size > 0
        wider = arrays(out)["half_width"] - arrays(plain)["half_width"]
        # 2 (1 + 8/2) root mean squares of 2 changes
        assert wider == pytest.approx([10 * size] * 2, rel=1e-6)

    def test_one_datum_has_no_standard_error(self, score):
        out, done = score(PATH, "--n", 1, "--measured", 1, "--budget")
        assert done.status == 0, done.err
        assert " ± unknown bits/dim" in done.out
        assert "95 % interval                   unknown" in done.out
        budget = summary(out)["budget"]
        assert (budget["std_error"], budget["set_error"], budget["half_width"]) == (None,) * 3
        assert budget["solver"] is not None


OTHER_DATA = ("pf-ode/continuous", "pf-ode/autoencoder")  # no levels, or no model of latents


class TestEveryProtocol:
    @pytest.mark.parametrize("protocol", [p for p in PROTOCOLS if p not in OTHER_DATA])
    @pytest.mark.by_default("vlb-ddpm", "pf-ode/uniform")
    def test_of_quantized_data(self, score, protocol):
        bound = protocol.startswith("vlb")
        method = ("--nodes", 4) if bound else PATH
        more = ("--steps", 5) if protocol == "vlb-ddpm" else ()
        out, done = score(method, "--protocol", protocol, "--n", 3, "--budget", *more)
        assert done.status == 0, done.err
        found = summary(out)
        assert (found["protocol"], found["unit"]) == (protocol, "bits/dim")
        assert f" bits/dim   {protocol}\n" in done.out
        assert all(math.isfinite(row["bits_per_dim"]) for row in rows(out))
        assert all(row["std_error"] > 0 for row in rows(out))
        # a bound has no solver; float64 is tried with all
        solvers = 0 if bound else 3
        assert (found["budget"]["solver_n"], found["budget"]["rounding_n"]) == (solvers, 3)
        assert ("no cut-off" in done.out) == bound
        if protocol != "pf-ode/uniform":
            assert {row["cut_off"] for row in rows(out)} == {0}

    @pytest.mark.parametrize(
        "protocol", ["pf-ode/continuous", "pf-ode/decoder", "vlb-continuous", "vlb-ddpm"]
    )
    @pytest.mark.by_default("pf-ode/continuous", "vlb-continuous")
    def test_of_continuous_data(self, score, points_checkpoint, protocol):
        more = ("--steps", 5) if protocol == "vlb-ddpm" else ()
        method = ("--nodes", 4) if protocol.startswith("vlb") else SOLVER
        options = ("--protocol", protocol, "--n", 3, *more, "--budget")
        out, done = score(method, *options, checkpoint=points_checkpoint)
        assert done.status == 0, done.err
        assert (summary(out)["unit"], summary(out)["levels"]) == ("nats/dim", None)
        assert "2 dimensions, continuous" in done.out

    def test_variance_and_steps_of_a_chain(self, score, tmp_path):
        values = set()
        for i, more in enumerate([("--variance", "beta"), (), ("--steps", 7)]):
            options = ("--protocol", "vlb-ddpm", "--nodes", 4, "--n", 2, "--steps", 5, *more)
            out, done = score(options, *UNMEASURED, out=tmp_path / str(i))
            assert done.status == 0, done.err
            values.add(summary(out)["mean"])
            assert f"chain of {7 if '--steps' in more else 5} steps" in summary(out)["method"]
        assert len(values) == 3

    def test_the_terms_of_a_chain_sum_to_its_bound(self, score):
        options = ("--protocol", "vlb-ddpm", "--nodes", 4, "--n", 3, "--steps", 5, "--plot")
        out, done = score(options, *UNMEASURED, "--batch", 2, "--variance", "beta")
        assert done.status == 0, done.err
        assert "terms.csv, terms.png" in done.out
        with (out / "terms.csv").open(newline="") as file:
            first, *strata, last = csv.DictReader(file)
        assert [row["term"] for row in (first, *strata, last)] == ["L_T", *["L_{t-1}"] * 4, "L_0"]
        total = sum(float(row["value"]) for row in (first, *strata, last))
        found = summary(out)
        assert total == pytest.approx(found["mean"])
        assert float(last["cumulative"]) == pytest.approx(found["mean"])
        assert float(last["cumulative_error"]) == pytest.approx(found["std_error"])
        assert sum(float(row["steps"]) for row in strata) == pytest.approx(5)
        with Image.open(out / "terms.png") as picture:
            assert picture.size == (1210, 462)

    def test_rounded_labels_have_a_chain(self, score, snapped_checkpoint):
        options = ("--protocol", "vlb-ddpm", "--nodes", 4, "--n", 2)
        out, done = score(options, checkpoint=snapped_checkpoint)
        assert done.status == 0, done.err
        assert math.isfinite(summary(out)["mean"])

    @pytest.mark.parametrize("method", ["dopri5", "dop853", "bosh3", "adaptive_heun", "dopri8"])
    @pytest.mark.slow
    def test_every_solver(self, score, method):
        options = ("--method", method, "--trace", "hutchinson:probes=2", "--n", 2, *UNMEASURED)
        out, done = score(options, "--rtol", 0.05, "--atol", 0.05)
        assert done.status == 0, done.err
        assert summary(out)["method"].startswith(f"{method}, rtol 0.05, atol 0.05")
        assert ("per sample" in summary(out)["method"]) == (method == "dop853")

    def test_of_more_dimensions_a_path_with_a_measured_rule(self, score):
        """The results state which trace and nodes --trace auto chose for --image-error."""
        out, done = score((), "--n", 2, "--steps", 4, "--image-error", 1.0, *UNMEASURED)
        assert done.status == 0, done.err
        assert "divergence at 12 nodes" in summary(out)["method"]  # the fewest
        assert "probes=2" in summary(out)["trace"] or "blocks=2" in summary(out)["trace"]


class TestContinuous:
    def test_points_in_nats_beside_the_truth(self, score, points_checkpoint):
        """Data in the plane are solved by dopri5 with an exact trace."""
        out, done = score((), "--n", 4, "--budget", *UNMEASURED, checkpoint=points_checkpoint)
        assert done.status == 0, done.err
        found = summary(out)
        assert (found["unit"], found["protocol"]) == ("nats/dim", "pf-ode/continuous")
        assert found["method"].startswith("dopri5, rtol 1e-06")
        checkpoint, test = library.load(points_checkpoint), library.load_dataset("mixture3", "test")
        chosen = [int(row["row"]) for row in rows(out)]
        wanted = log_likelihood(checkpoint.model, test.x[chosen], Ode(t_min=0.5))
        assert [row["nats_per_dim"] for row in rows(out)] == (-wanted.log_prob / 2).tolist()
        assert {row["std_error"] for row in rows(out)} == {0}
        assert found["true_density"] == pytest.approx(
            -float(test.log_prob(test.x[chosen].double()).mean()) / 2, rel=1e-12
        )
        assert "the exact density's mean" in done.out

    @pytest.mark.slow
    def test_the_path_asked_for(self, score, points_checkpoint, tmp_path):
        """It agrees with the solver within the intervals that it states."""
        exact, _ = score((), "--n", 8, checkpoint=points_checkpoint, out=tmp_path / "exact")
        finer = ("--steps", 4, "--nodes", 40)
        path, done = score(PATH, "--n", 8, *finer, checkpoint=points_checkpoint)
        assert done.status == 0, done.err
        gaps = arrays(path)["nats_per_dim"] - arrays(exact)["nats_per_dim"]
        # 95 % each: seven of eight at least, but for 6 %
        assert (np.abs(gaps) <= arrays(path)["half_width"]).sum() >= 7

    @pytest.mark.usefixtures("pictures")
    def test_vectors_have_pictures(self, score, wide_checkpoint, tmp_path):
        np.save(tmp_path / "more.npy", np.random.default_rng(1).random((3, 5000)))
        options = ("--data-root", tmp_path, "--data", "more.npy", "--n", 3, *UNMEASURED)
        out, done = score(PATH, *options, checkpoint=wide_checkpoint)
        assert done.status == 0, done.err
        assert (out / "budget.png").exists()
        assert (out / "extremes.png").exists()


class TestData:
    def test_more_data_are_added_to_the_same(self, score, tmp_path):
        """The first rows chosen do not depend on how many are asked for; no row comes twice."""
        few, _ = score(PATH, "--n", 3, *UNMEASURED, out=tmp_path / "few")
        more, _ = score(PATH, "--n", 5, *UNMEASURED, out=tmp_path / "more")
        few, more = (arrays(folder) for folder in (few, more))
        assert np.array_equal(few["row"], more["row"][:3])
        # no batch mate matters, but for the rounding of a float32 network
        assert few["log_prob"] == pytest.approx(more["log_prob"][:3], rel=1e-5)
        assert len(set(more["row"])) == 5

    @pytest.mark.parametrize("trace", [PATH, PATH[:6]], ids=["given", "measured"])
    @pytest.mark.by_default("measured")
    def test_labels_go_to_the_network(self, score, labelled_checkpoint, trace):
        out, done = score(trace, "--n", 3, checkpoint=labelled_checkpoint)
        assert done.status == 0, done.err
        labels = library.load_dataset("digits", "test").labels
        assert [row["label"] for row in rows(out)] == [
            int(labels[int(r["row"])]) for r in rows(out)
        ]

    def test_other_labels_other_values(self, score, labelled_checkpoint, monkeypatch, tmp_path):
        first, _ = score(PATH, "--n", 3, *UNMEASURED, checkpoint=labelled_checkpoint)

        def shifted(*arguments, y, **others):
            return likelihood_budget(*arguments, y=(y + 1) % 10, **others)

        monkeypatch.setattr(scoring, "likelihood_budget", shifted)
        second, _ = score(
            PATH, "--n", 3, *UNMEASURED, checkpoint=labelled_checkpoint, out=tmp_path / "other"
        )
        assert not (arrays(first)["log_prob"] == arrays(second)["log_prob"]).any()

    def test_a_file_is_scored_whole(self, score, tmp_path):
        np.save(tmp_path / "some.npy", np.full((3, 8, 8), 16, dtype=np.uint8))
        options = ("--data", tmp_path / "some.npy", "--levels", 17, "--n", 3, "--budget")
        _, done = score(PATH, *options, *UNMEASURED)
        assert done.status == 0, done.err
        assert "3 of 3" in done.out
        assert "(all)" in done.out


class TestResuming:
    OPTIONS = ("--n", 7, "--batch", 2, "--measured", 2)

    @pytest.fixture
    def calls(self, monkeypatch):
        """Number of data of each computed batch; `stop_at` ends the process at that batch."""

        class Calls(list):
            stop_at = None

        calls = Calls()

        def counted(model, data, *method, **others):
            if len(calls) == calls.stop_at:
                raise KeyboardInterrupt
            calls.append(len(data))
            return likelihood_budget(model, data, *method, **others)

        monkeypatch.setattr(scoring, "likelihood_budget", counted)
        return calls

    @pytest.mark.parametrize(
        "stop_at",
        [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(5, marks=pytest.mark.slow)],
    )
    def test_goes_on_where_it_was_stopped(self, score, calls, tmp_path, stop_at):
        """It stops after a batch, before the last, or while the solver's error is measured."""
        whole, done = score(PATH, *self.OPTIONS, out=tmp_path / "whole")
        assert done.status == 0, done.err
        assert calls == [2, 2, 2, 1, 2, 2]
        calls.clear()
        calls.stop_at = stop_at
        out, done = score(PATH, *self.OPTIONS)
        assert done.status == 130
        assert not (out / "summary.json").exists()
        assert len(list((out / "parts").iterdir())) == stop_at
        calls.stop_at = None
        _, done = score(PATH, *self.OPTIONS)
        assert done.status == 0, done.err
        assert calls == [2, 2, 2, 1, 2, 2]
        assert not (out / "parts").exists()
        for name in ("per_image.npz", "per_image.csv", "budget.txt"):
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name
        ours, theirs = (
            {k: v for k, v in summary(f).items() if k != "seconds"} for f in (out, whole)
        )
        assert ours == theirs

    def test_an_error_of_whoever_watches(self, tiny_checkpoint, tmp_path, calls):
        request = ScoreRequest(
            str(tiny_checkpoint), n=6, batch=2, steps=4, nodes=8, trace="hutchinson", measured=0
        )

        def watch(done, total, note):
            if done == 4:
                raise OSError("the terminal is gone")

        with pytest.raises(OSError, match="the terminal is gone"):
            score_data(request, tmp_path / "out", on_progress=watch)
        told = []
        score_data(request, tmp_path / "out", on_progress=lambda *args: told.append(args[:2]))
        assert calls == [2, 2, 2]
        assert told == [(0, 6), (2, 6), (4, 6), (6, 6)]

    def test_stopped_before_anything_was_done(self, score, calls):
        calls.stop_at = 0
        out, done = score(PATH, *self.OPTIONS)
        assert (done.status, out.exists()) == (130, False)

    def test_stopped_before_anything_was_done_leaves_what_is_not_ours(self, score, calls, tmp_path):
        """A file put there meanwhile stays, and the command can be repeated with other options."""
        notes = tmp_path / "out" / "notes.txt"

        def lay(*_, **__):
            notes.write_text("mine")
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scoring, "likelihood_budget", lay)
            assert score(PATH, *self.OPTIONS)[1].status == 130
        assert notes.read_text() == "mine"
        _, done = score(PATH, "--n", 2, *UNMEASURED)
        assert done.status == 0, done.err
        assert notes.read_text() == "mine"

    def test_a_stopped_overwrite_leaves_the_old_results_and_goes_on(self, score, calls):
        _, first = score(PATH, "--n", 2, *UNMEASURED)
        calls.stop_at = 2
        assert score(PATH, *self.OPTIONS, "--overwrite")[1].status == 130
        calls.stop_at = None
        assert score(PATH, "--n", 2, *UNMEASURED)[1].out == first.out
        out, done = score(PATH, *self.OPTIONS, "--overwrite")
        assert done.status == 0, done.err
        assert calls == [2, 2, 2, 2, 1, 2, 2]  # the first batch of seven only once
        assert summary(out)["n"] == 7

    def test_a_damaged_part_is_done_again(self, score, calls):
        calls.stop_at = 2
        out, _ = score(PATH, *self.OPTIONS)
        path = out / "parts" / "00000000.npz"
        path.write_bytes(path.read_bytes()[:100])
        calls.stop_at = None
        with pytest.warns(UserWarning, match="00000000.npz is damaged; it is made again"):
            _, done = score(PATH, *self.OPTIONS)
        assert done.status == 0, done.err
        assert calls == [2, 2, 2, 2, 1, 2, 2]

    def test_a_damaged_summary_is_made_again(self, score, calls):
        out, first = score(PATH, "--n", 2, *UNMEASURED)
        found = summary(out)
        (out / "summary.json").write_text('{"mean": 1.0}')
        with pytest.warns(UserWarning, match="summary.json is missing or damaged; the results are"):
            _, again = score(PATH, "--n", 2, *UNMEASURED)
        assert again.status == 0
        assert summary(out)["mean"] == found["mean"]
        assert calls == [2, 2]

    def test_a_finished_request_is_not_computed_again(self, score, calls):
        _, first = score(PATH, "--n", 2, *UNMEASURED)
        calls.stop_at = 1
        _, second = score(PATH, "--n", 2, *UNMEASURED)
        assert (second.status, second.out) == (0, first.out)

    def test_other_settings_need_overwrite(self, score, calls):
        out, _ = score(PATH, "--n", 2, *UNMEASURED)
        before = {path: path.read_bytes() for path in out.iterdir()}
        for other, words in (
            (("--seed", 1), "seed = 0, not 1"),
            (("--n", 3), "n = 2, not 3"),
            (("--draws", 2), "draws = 1, not 2"),
            (("--nodes", 9), "nodes = 4, not 9"),
            (("--protocol", "vlb-ddpm"), "protocol = 'pf-ode/uniform', not 'vlb-ddpm'"),
        ):
            options = ("--n", 2, *UNMEASURED, *other)
            _, done = score(PATH, *options)
            assert done.status == 2
            assert f"--out {out}: holds results with {words}" in done.err
        assert {path: path.read_bytes() for path in out.iterdir()} == before
        _, done = score(PATH, "--n", 3, "--overwrite", *UNMEASURED)
        assert done.status == 0, done.err
        assert summary(out)["n"] == len(rows(out)) == 3
        assert calls == [2, 3]

    def test_what_was_given_or_left_to_default_is_the_same(self, score, calls):
        """Giving the name that "auto" stands for is the same request."""
        score(PATH[2:], "--n", 2, *UNMEASURED)
        _, done = score(PATH, "--n", 2, "--protocol", "pf-ode/uniform", *UNMEASURED)
        assert done.status == 0, done.err
        assert calls == [2]


def test_out_of_memory_says_what_to_try_and_leaves_nothing(score, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(scoring, "likelihood_budget", fail)
    out, done = score(PATH, "--n", 7, "--batch", 5)
    assert done.status == 1
    assert "batch of 5, each of shape (1, 8, 8); try --batch 2" in done.err
    assert not out.exists()
