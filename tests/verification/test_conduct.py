"""What `certify` finds beside orders: calls, evaluations, ends, seeds, and where samplers part."""

import sys
import time

import pytest
import torch

from scoresde import certify
from scoresde.interop.samplers import foreign_sampler
from scoresde.interop.samplers.own import OwnSampler
from scoresde.names.samplers import parse_sampler
from scoresde.verification import conduct, level_same
from scoresde.verification.level_laws import compared
from scoresde.verification.level_orders import Order
from scoresde.verification.subject import Subject

from .test_certify import FEW, dpmpp_2m, dpmpp_2m_of_equal_steps, euler, pairs


def euler_that_evaluates_twice(denoiser, x, sigmas):
    return euler(lambda x, sigma: (denoiser(x, sigma), denoiser(x, sigma))[1], x, sigmas)


def euler_at_the_next_level(denoiser, x, sigmas):
    for t, s in pairs(sigmas):
        x = x + (s - t) * (x - denoiser(x, s)) / t
    return x


def euler_that_stops_before_zero(denoiser, x, sigmas):
    return euler(denoiser, x, sigmas[sigmas > 0])


def euler_in_place(denoiser, x, sigmas):
    for t, s in pairs(sigmas):
        x += (s - t) * (x - denoiser(x, t)) / t
    return x


def euler_of_a_fixed_seed(denoiser, x, sigmas):
    fixed = torch.Generator().manual_seed(0)
    shift = torch.randn(x.shape, dtype=x.dtype, generator=fixed)
    return euler(denoiser, x + 1e-3 * shift, sigmas)


class EulerThatRemembers:
    """It begins with the last slope of the call before."""

    def __init__(self):
        self.slope = 0.0

    def __call__(self, denoiser, x, sigmas):
        kept, self.slope = self.slope, float(denoiser(x, sigmas[0]).mean())
        return euler(denoiser, x + 1e-3 * kept, sigmas)


def euler_of_own_steps(denoiser, x, sigmas, rtol=1e-2):
    """Steps of equal length, as many as rtol tells."""
    u = torch.linspace(0, 1, round(3 * rtol ** (-1 / 3)), dtype=sigmas.dtype)
    return euler(denoiser, x, torch.lerp(*sigmas[[0, -1]].log(), u).exp())


def euler_without_tolerance(denoiser, x, sigmas, rtol=1e-2):
    return euler_of_own_steps(denoiser, x, sigmas)


def exits(denoiser, x, sigmas):
    sys.exit(0)


def dpmpp_2m_with_euler_at_the_end(denoiser, x, sigmas):
    x = dpmpp_2m(denoiser, x, sigmas[:-1])
    return euler(denoiser, x, sigmas[-2:])


CONDUCT = [
    (conduct.evaluations, euler, "info", "N"),
    (conduct.evaluations, euler_that_evaluates_twice, "warn", "2 N; 15 of 30 at N = 15 have no"),
    (conduct.first_level, euler_at_the_next_level, "fail", "σ = 3.46, and its state has noise 5"),
    (conduct.level_zero, euler, "pass", "the step to 0 is E[x_0]"),
    (conduct.level_zero, euler_that_stops_before_zero, "fail", "noise 0.02 is left at σ = 0"),
    (conduct.call, euler_in_place, "warn", "it changes x in place"),
    (conduct.repeatable, euler, "pass", "deterministic"),
    (conduct.repeatable, euler_of_a_fixed_seed, "fail", "if it moves to another row"),
    (conduct.repeatable, EulerThatRemembers(), "fail", "equal seeds give other results"),
    (conduct.tolerance, euler_of_own_steps, "pass", "1e-03: error"),
    (conduct.tolerance, euler_without_tolerance, "fail", "13 evaluations; 1e-06: error"),
]


@pytest.mark.parametrize(("law", "sampler", "verdict", "text"), CONDUCT)
def test_conduct(law, sampler, verdict, text):
    finding = law(Subject(foreign_sampler(sampler), None, None, FEW))
    assert finding.verdict == verdict, finding
    assert text in finding.measured


def test_where_two_samplers_part(monkeypatch):
    monkeypatch.setattr(level_same, "CLAIMS", ())  # only the variants of `like` are tried
    like = OwnSampler("dpmpp-2m", parse_sampler("dpmpp-2m"))

    def found(sampler):
        return level_same.same_method(Subject(foreign_sampler(sampler), None, like, FEW))

    assert found(dpmpp_2m).measured.startswith("equal to dpmpp-2m: 15 evaluations at N = 15")
    # the first step has no history, and the second one shows in the third evaluation
    assert "evaluation 3, at σ = 2.335, is the first" in found(dpmpp_2m_of_equal_steps).measured
    text = found(dpmpp_2m_with_euler_at_the_end).measured
    assert "all evaluations are equal" in text
    assert "it equals dpmpp-2m:lower_order_final=true" in text
    assert "equal for 14 evaluations" in found(lambda d, x, s: dpmpp_2m(d, x, s[:-1])).measured
    with pytest.raises(ValueError, match="like must be a deterministic sampler on a grid"):
        certify(euler, like="ancestral")


def test_a_call_that_fails_is_one_finding():
    report = certify(exits, steps=FEW)
    assert report.failures == ("call",)
    assert "exits would end the process: SystemExit(0)" in report["call"].measured
    report = certify(lambda denoiser, x, sigmas: time.sleep(60), limit=0.1)
    assert report["call"].measured == "not ended after 0.1 s"
    with pytest.raises(ValueError, match="limit must be above 0 seconds, got 0"):
        certify(euler, limit=0)


def test_errors_that_grow_are_no_order():
    assert compared(Order(-4.9, 3.1, FEW), 1, "order", "").verdict == "fail"
    assert "cannot tell" in compared(Order(0.5, 0.6, FEW), 1, "order", "").measured
