"""The claims about samplers hold, and a method of another order misses its claim."""

import csv
import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from PIL import Image

import scoresde
from scoresde.data import DataSpec
from scoresde.grid import log_snr
from scoresde.names.samplers import SAMPLERS, parse_sampler
from scoresde.samplers import DDIM, DPMSolverMultistep, GridSampler
from scoresde.sde import VE, VP
from scoresde.tasks.request import StoredModel
from scoresde.verification.claims import CHECKED_GRIDS, CHECKED_SDES, CLAIMS, Claim
from scoresde.verification.orders import (
    OdeProblem,
    alternating,
    exact_flow,
    gaussian,
    mixture,
    ode_errors,
    rms_distance,
    slope,
    starts,
    weak_errors,
)
from scoresde.verification.prepare import prepare_verification, trials_of
from scoresde.verification.trials import Measurement, run_trials
from scoresde.verification.verdicts import missed_text, save_errors_figure, text_table, write_csv


def silent(stage, done, total, note):
    """Ignores progress."""


def claim(sampler, order, **changes):
    settings = {"band": 0.1, "steps": (40, 80, 160), "sdes": ("vp",)}
    return Claim(sampler, "ode", order, "nobody", **settings | changes)


def measure(*claims, sampler=None):
    """Rows of claims, of another sampler than the one they name if one is given."""
    trials = trials_of(claims, ("vp",), quick=True)
    if sampler is not None:
        trials = [replace(trial, sampler=sampler) for trial in trials]
    return run_trials(trials, silent)


def test_claims_name_what_exists():
    for entry in CLAIMS:
        parse_sampler(entry.sampler)
        assert set(entry.sdes) <= CHECKED_SDES.keys(), entry
        assert entry.grid in CHECKED_GRIDS, entry
        assert entry.paper, entry
        assert (entry.kind == "none") == (not entry.steps), entry


@pytest.mark.parametrize("name", SAMPLERS)
def test_something_is_said_of_every_sampler(name):
    assert any(entry.sampler.partition(":")[0] == name for entry in CLAIMS)


def test_a_neighbouring_order_is_outside_every_band():
    """Even one that is off by the same band; and two doublings, at least, show it."""
    for entry in CLAIMS:
        if entry.order is None or entry.kind == "tolerance":
            continue
        assert entry.steps[-1] / entry.steps[0] >= 4, entry
        for other in (entry.order - 1, entry.order + 1):
            nearest = other + math.copysign(entry.band, entry.order - other)
            assert not entry.holds(nearest), entry


def test_no_setting_is_measured_twice():
    seen = [(c.sampler, c.kind, c.order, sde, c.grid) for c in CLAIMS for sde in c.sdes]
    assert len(seen) == len(set(seen))


def test_alternating_steps():
    ts = alternating(VP(), 6, 0.01, 0.9)
    assert (float(ts[0]), float(ts[-1])) == (0.9, 0.01)
    steps = VP().lam(ts).diff()
    # λ goes through its inverse, worth 1e-12
    assert torch.allclose(steps[1::2], 3 * steps[::2], rtol=1e-9)
    assert torch.allclose(steps[::2], steps[:1].expand(3), rtol=1e-9)
    assert len(alternating(VP(), 7)) == 8


@pytest.mark.parametrize("sde", CHECKED_SDES.values(), ids=CHECKED_SDES.keys())
@pytest.mark.by_default("vp", "linear")
def test_the_exact_flow_of_a_gaussian_is_known(sde):
    """x_t = mean + std (x_1 − mean_1)/std_1, with the moments of p_t."""
    model = gaussian(sde)
    first = sde.t_regular
    x = torch.tensor([[-1.0], [0.4], [2.0]], dtype=torch.float64) * sde.start_std(first)

    def moments(t):
        alpha, sigma = float(sde.alpha(t)), float(sde.sigma(t))
        return 0.3 * alpha, math.hypot(0.5 * alpha, sigma)

    (mean, std), (end_mean, end_std) = moments(first), moments(1e-3)
    expected = end_mean + end_std * (x - mean) / std
    # tolerance 1e-12 in some 100 steps
    assert torch.allclose(exact_flow(model, x, 1e-3), expected, rtol=0, atol=1e-10)


def test_slope_is_that_of_a_power():
    assert slope((10, 20, 40), [3 * n**-2.5 for n in (10, 20, 40)]) == pytest.approx(2.5)
    assert math.isnan(slope((10, 20), [1.0, 0.0]))
    assert math.isnan(slope((10, 20), [1.0, math.inf]))


def test_starts_are_quantiles_of_the_prior():
    x = starts(VE())
    assert x.shape == (49, 2)
    assert torch.allclose(x.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    # the variance of the 7 midpoint quantiles of N(0, 1) is 0.84 of its own
    assert 0.8 < float(x.var(0, unbiased=False)[0]) / VE().prior_std ** 2 < 0.9


def test_ode_errors_are_distances_to_the_exact_ends_and_nfe_is_counted():
    problem = OdeProblem(mixture(VP()), starts(VP()), 1e-3)
    grids = [log_snr(VP(), n) for n in (5, 10)]
    heun = parse_sampler("heun")
    errors, nfe = ode_errors(problem, [(heun, ts) for ts in grids])
    assert nfe == [10, 20]
    with torch.no_grad():
        end = heun.run(problem.model, problem.start, grids[1], None).state
    assert errors[1] == rms_distance(end, exact_flow(problem.model, problem.start, 1e-3))
    # this number was computed once by other code and has four digits
    errors, _ = ode_errors(problem, [(DDIM(), grids[1])])
    assert errors == pytest.approx([0.2088], rel=1e-3)


def test_tolerance_errors_follow_the_tolerance():
    (row,) = measure(Claim("dopri5", "tolerance", None, "nobody", steps=(1e-3, 1e-6)))
    assert row.nfe[0] < row.nfe[1]
    assert row.errors[1] < 1e-5 < row.errors[0] < 2e-2


def test_weak_errors_are_those_of_the_exact_moments():
    """DDIM at η = 0 is affine: its output's standard deviation is that of one impulse."""
    sde, ts = VP(), log_snr(VP(), 20)
    with torch.no_grad():
        two = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        low, high = DDIM().run(gaussian(sde), two, ts, None).state.flatten().tolist()
    first, last = ((float(sde.alpha(t)), float(sde.sigma(t))) for t in (1.0, 1e-3))
    mean = low + (high - low) * 0.3 * first[0]
    std = (high - low) * math.hypot(0.5 * first[0], first[1])
    goal = 0.3 * last[0], math.hypot(0.5 * last[0], last[1])
    got = weak_errors(sde, DDIM(), [ts])
    assert got == pytest.approx([math.dist((mean, std), goal)], rel=1e-9)


def test_a_claim_that_holds_and_one_that_does_not():
    good, bad = measure(claim("dpmpp-2m", 2), claim("dpmpp-2m", 3))
    assert (good.verdict, bad.verdict) == ("ok", "MISSED")
    assert good.observed == bad.observed == pytest.approx(2.0, abs=0.05)
    assert good.nfe == good.steps == [40, 80, 160]
    assert missed_text([good]) == ""
    assert missed_text([good, bad]).startswith("dpmpp-2m (ode, vp/log_snr) observed 2.0")
    assert "expected 3 ± 0.1" in missed_text([bad])


@pytest.mark.slow
def test_the_copied_third_order_is_found_out():
    """Half of the second difference, as in the copied form, has order 2."""
    third = next(c for c in CLAIMS if c.sampler == "dpmpp-3m" and c.grid == "alternating")
    assert [row.verdict for row in measure(third)] == ["ok"]
    assert measure(third, sampler=DPMSolverMultistep(3, copied=True))[0].missed


def test_a_wrong_ratio_of_steps_is_found_out(monkeypatch):
    """A method that assumes equal steps keeps order 2 on smooth grids, not on alternating ones."""
    monkeypatch.setattr(DPMSolverMultistep, "_row", equal_steps(DPMSolverMultistep._row))
    smooth, uneven = (claim("dpmpp-2m", 2, grid=grid) for grid in ("log_snr", "alternating"))
    assert [row.missed for row in measure(smooth, uneven)] == [False, True]


def equal_steps(row):
    def changed(self, order, nodes):
        if order == 2:
            t, s = nodes[-2:]
            before = nodes[-3]._replace(lam=2 * t.lam - s.lam)
            nodes = [*nodes[:-3], before, t, s]
        return row(self, order, nodes)

    return changed


def test_what_nobody_claims_cannot_fail():
    (row,) = measure(claim("ddim", None))
    assert row.verdict == "no claim"
    assert row.observed == pytest.approx(1.0, abs=0.05)
    (row,) = measure(Claim("gotta-go-fast", "none", None, "nobody"))
    assert (row.verdict, row.observed, row.errors) == ("no claim", None, [])


def test_stochastic_and_adaptive_kinds():
    entries = [
        Claim("ancestral", "weak", 1, "p", band=0.1, steps=(50, 100, 200)),
        Claim("dopri5", "tolerance", 20.0, "p", steps=(1e-3, 1e-5)),
        Claim("fehlberg2", "tolerance", 20.0, "p", steps=(1e-3,)),
    ]
    assert [row.verdict for row in measure(*entries)] == ["ok", "ok", "MISSED"]


@pytest.fixture(scope="module")
def rows():
    return measure(
        claim("ddim", 1), claim("dpmpp-2m", 2), claim("dpmpp-2m", 3), claim("heun", None)
    )


def test_the_table_has_a_line_per_claim(rows):
    lines = text_table(rows).splitlines()
    assert [line.split()[0] for line in lines] == [
        "sampler",
        "ddim",
        "dpmpp-2m",
        "dpmpp-2m",
        "heun",
    ]
    assert lines[2].endswith("ok")
    assert lines[3].endswith("MISSED")
    other = replace(rows[0], sde="ve", observed=1.2, verdict="MISSED")
    line = text_table([rows[0], other]).splitlines()[1]
    assert "1.00 to 1.20" in line
    assert line.endswith("MISSED")


def test_many_misses_are_counted(rows):
    assert missed_text([rows[2]] * 11).endswith("and 3 more")


def test_csv_reads_back(rows, tmp_path):
    write_csv(tmp_path / "rows.csv", rows)
    with open(tmp_path / "rows.csv", encoding="utf-8", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["sampler"] for row in read] == [row.sampler for row in rows]
    assert [float(e) for e in read[1]["errors"].split()] == rows[1].errors


def test_figure(rows, tmp_path):
    save_errors_figure(tmp_path / "errors.png", rows)
    with Image.open(tmp_path / "errors.png") as picture:
        assert picture.size[0] > picture.size[1]
    save_errors_figure(tmp_path / "nothing.png", [])
    assert not (tmp_path / "nothing.png").exists()


@pytest.mark.slow
def test_results_in_a_folder(tmp_path):
    run = prepare_verification(["ddim"], ["vp"], quick=True, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    measured = run.run(silent)
    assert not any(row.missed for row in measured)
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert found["missed"] == 0
    assert [Measurement(**row) for row in found["rows"]] == measured
    assert (tmp_path / "out" / "errors.png").exists()
    with pytest.raises(ValueError, match="samplers = "):
        prepare_verification(["heun"], ["vp"], quick=True, folder=tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samplers": ["dimm"]}, "did you mean ddim"),
        ({"samplers": ["ddim:eta=0.3"]}, "nothing is claimed of 'ddim:eta=0.3'"),
        ({"sdes": ["cosin"]}, "--sdes: 'cosin' is unknown; did you mean cosine"),
        ({"samplers": ["bosh3"], "quick": True}, "--samplers: no claim of bosh3 in this form"),
        ({"given": "digits-vp", "quick": True}, "leave out --sdes, --quick"),
        ({"given": "digits-vp", "samplers": ["dopri5"]}, "a deterministic one"),
        ({"seed": -1}, "seed must"),
    ],
)
def test_bad_arguments(arguments, message):
    if "given" in arguments:
        arguments = arguments | {"given": StoredModel.read(arguments["given"])}
    with pytest.raises(ValueError, match=message):
        prepare_verification(**arguments)


def _missed(claims, sde, quick):
    """The error text of a run of these claims under one SDE, for the claims that fail.

    Without the steps that only the figure shows: they change no verdict.
    """
    trials = trials_of(claims, (sde,), quick)
    rows = run_trials([replace(trial, steps=trial.claim.steps) for trial in trials], silent)
    assert len(rows) == sum(sde in claim.sdes for claim in claims)
    return missed_text(rows)


def _claims_of(name):
    return [claim for claim in CLAIMS if claim.sampler.partition(":")[0] == name]


def _in_the_short_form(claim):
    """Whether a claim has an order that can be missed and is measured without many paths.

    `tests/samplers/test_strong_order.py` measures strong errors against an exact solution.
    """
    return claim.quick and claim.order is not None and claim.kind != "strong"


@pytest.mark.parametrize(
    "name", [name for name in SAMPLERS if any(map(_in_the_short_form, _claims_of(name)))]
)
@pytest.mark.by_default(
    "ddim", "dpm-3", "dpmpp-2m", "dpmpp-3m", "deis", "heun3", "heun", "ancestral", "dopri5"
)
def test_the_claims_of_the_short_form_hold(name):
    """Most of them are on uneven steps, which reveal a wrong ratio of two steps.

    The first two numbers of steps give an order; adaptive solvers keep their first 4 tolerances.
    """
    short = [
        replace(claim, quick=True, steps=claim.steps[: 4 if claim.kind == "tolerance" else 2])
        for claim in _claims_of(name)
        if _in_the_short_form(claim)
    ]
    assert _missed(short, "vp", quick=True) == ""


@pytest.mark.slow
@pytest.mark.parametrize("sde", CHECKED_SDES)
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_claim_holds(name, sde):
    """On all grids under VP, and on those of the short form under the other SDEs."""
    quick = sde != "vp"
    claims = [claim for claim in _claims_of(name) if claim.quick or not quick]
    assert _missed(claims, sde, quick) == ""


@dataclass(frozen=True)
class Own(GridSampler):
    """DDIM(η), written as a sampler of the user."""

    eta: float = 0.0

    def step(self, model, x, t, s, state, noise):
        return DDIM(self.eta).step(model, x, t, s, state, noise)


def test_a_sampler_object_is_measured_without_a_verdict_or_with_a_claimed_order(capsys):
    found = scoresde.verify(Own(), sdes=["vp"])
    assert {(row.sampler, row.kind, row.verdict) for row in found} == {
        ("Own(eta=0.0)", "ode", "no claim")
    }
    assert all(row.observed == pytest.approx(1, abs=0.05) for row in found)
    assert {row.grid for row in found} == {"log_snr", "alternating"}
    assert {row.verdict for row in scoresde.verify(Own(), order=1, sdes=["vp"], quick=True)} == {
        "ok"
    }
    assert {row.verdict for row in scoresde.verify(Own(), order=2, sdes=["vp"], quick=True)} == {
        "MISSED"
    }
    assert "".join(capsys.readouterr()) == ""


def test_whether_a_sampler_object_draws_noise_is_found_out():
    found = scoresde.verify([Own(eta=1.0), DDIM(0.5)], order=1, sdes=["vp"], quick=True)
    assert {(row.kind, row.verdict) for row in found} == {("weak", "ok")}
    assert {row.sampler for row in found} == {"Own(eta=1.0)", "ddim:eta=0.5"}


def test_python_and_the_command_measure_the_same():
    python = scoresde.verify("ddim:eta=1", quick=True)
    command = prepare_verification(["ddim:eta=1"], quick=True).run(silent)
    assert [row.errors for row in python] == [row.errors for row in command]


@pytest.mark.parametrize(
    ("sampler", "options", "error", "message"),
    [
        (3, {}, TypeError, "sampler must be of type Sampler, got int"),
        ("ddmi", {}, ValueError, r"'ddmi' is unknown; did you mean ddim"),
        ("ddim", {"order": 1}, ValueError, "--order: 1, but the orders of samplers in the table"),
        ([Own(), Own()], {}, ValueError, r"Own\(eta=0.0\) is given twice"),
        (Own(), {"sdes": ["vq"]}, ValueError, "--sdes: 'vq' is unknown"),
        (Own(), {"model": 3}, TypeError, "model must be a ScoreModel"),
    ],
)
def test_what_verify_refuses(sampler, options, error, message):
    with pytest.raises(error, match=message):
        scoresde.verify(sampler, **options)


def test_a_sampler_object_on_a_network_and_its_code_in_the_results(tmp_path):
    model = gaussian(VP())
    model.data = DataSpec((1,), -2.0, 2.0)
    found = scoresde.verify(Own(), model=model, out=tmp_path / "out")
    assert [(row.note, row.verdict) for row in found] == [("on a network", "no claim")]
    assert found[0].observed == pytest.approx(1, abs=0.1)
    sources = json.loads((tmp_path / "out" / "scoresde.json").read_text())["sources"]
    assert set(sources) == {"model", "sampler Own(eta=0.0)"}
    with pytest.raises(ValueError, match=r"holds results with order|holds results with samplers"):
        scoresde.verify("ddim", model=model, out=tmp_path / "out")
