"""Trace rules and likelihood methods by text, and wherever a text stands for an object."""

from dataclasses import replace

import pytest
import torch

from scoresde.data import DataSpec
from scoresde.likelihood import (
    METHODS,
    TRACES,
    Dequantized,
    ExactTrace,
    Hutchinson,
    HutchPP,
    Ode,
    Path,
    Probing,
    XTrace,
    choose_trace,
    decode,
    encode,
    interpolate,
    linearize,
    log_likelihood,
    neglected,
    parse_method,
    parse_trace,
    sample_with_log_prob,
)
from scoresde.noise import SampleNoise
from scoresde.plain import ConfigError
from scoresde.score import FunctionScore
from scoresde.sde import VP

POINTS = torch.tensor([[0.0, 0.4], [-1.0, 0.5]], dtype=torch.float64)


@pytest.mark.parametrize("name", list(TRACES))
def test_every_name_makes_a_trace_rule_that_runs(name, gaussian):
    """Of a diagonal matrix of rank one, whose trace all rules find exactly."""
    rule, x = parse_trace(name), torch.ones(3, 8, dtype=torch.float64)
    diagonal = torch.tensor([4.0] + 7 * [0.0], dtype=torch.float64)
    jacobian = linearize(lambda x: diagonal * x, x, gaussian(VP(), 8).nfe, 0.5)
    found = rule.estimate(jacobian, rule.draw(SampleNoise(0, range(3)), x)).mean(1)
    torch.testing.assert_close(found, torch.full_like(found, 4.0))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("exact", ExactTrace()),
        ("hutchinson", Hutchinson()),
        (" hutchinson:probes=4 ", Hutchinson(probes=4)),
        ("hutchinson:probe=gaussian:probes=2", Hutchinson("gaussian", 2)),
        ("probing:colours=8:blocks=2", Probing(8, 2)),
        ("hutch++", HutchPP()),
        ("hutch++:probes=12", HutchPP(12)),
        ("xtrace:probes=12", XTrace(12)),
    ],
)
def test_texts_and_their_trace_rules(text, rule):
    assert parse_trace(text) == rule


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("exakt", "trace 'exakt' is unknown; did you mean exact"),
        ("", "trace '' is unknown"),
        ("auto", "trace 'auto' is unknown"),
        ("exact:probes=2", "trace exact: unknown key 'probes'; allowed: none"),
        ("hutchinson:", "write parameters as key=value, got ''"),
        ("hutchinson:4", "write parameters as key=value, got '4'"),
        ("hutchinson:prob=2", "trace hutchinson: unknown key 'prob'; did you mean probe"),
        ("hutchinson:probes=0", "trace hutchinson: probes must be at least 1, got 0"),
        ("hutchinson:probes=1.5", "trace hutchinson.probes must be an integer, got 1.5"),
        ("hutchinson:probes=true", "trace hutchinson.probes must be an integer, got True"),
        ("hutchinson:probe=3", "trace hutchinson.probe must be"),
        ("hutchinson:probe=sign", "trace hutchinson: probe must be one of rademacher"),
        ("hutchinson:probes=1:probes=2", "probes is given twice"),
        ("hutch++:probes=7", r"trace hutch\+\+: probes must be a multiple of 3"),
        ("xtrace:probes=7", "trace xtrace: probes must be a multiple of 2"),
    ],
)
def test_wrong_trace_rules_are_refused(text, match):
    with pytest.raises(ConfigError, match=match):
        parse_trace(text)


@pytest.mark.parametrize("name", METHODS)
def test_every_name_makes_a_method_that_runs(name, mixture):
    """With a loose tolerance, because a method of order 2 takes seconds at the default one."""
    loose = {} if name == "path" else {"rtol": 1e-2, "atol": 1e-2}
    text = ":".join([name, *(f"{key}={value}" for key, value in loose.items())])
    method, model = replace(parse_method(name), **loose), mixture(VP())
    found = log_likelihood(model, POINTS, text, seed=0)
    assert torch.equal(found.log_prob, log_likelihood(model, POINTS, method, seed=0).log_prob)
    # the mismatch of the prior and the errors of these settings
    torch.testing.assert_close(found.log_prob, model.log_prob(POINTS), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("path", Path()),
        (" path:steps=64:trace=exact ", Path(64, trace=ExactTrace())),
        ("path:t_min=0.001", Path(t_min=1e-3)),
        ("dopri5", Ode()),
        ("dop853:rtol=1e-4", Ode("dop853", 1e-4)),
        ("bosh3:per_sample=true", Ode("bosh3", per_sample=True)),
    ],
)
def test_texts_and_their_methods(text, method):
    assert parse_method(text) == method


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("pth", "method 'pth' is unknown; did you mean path"),
        ("fehlberg2", "method 'fehlberg2' is unknown"),
        ("path:step=3", "method path: unknown key 'step'; did you mean steps"),
        ("path:steps=0", "method path: steps must be at least 1, got 0"),
        ("path:trace=exakt", "trace 'exakt' is unknown; did you mean exact"),
        ("dopri5:method=bosh3", "method dopri5: unknown key 'method'"),
        ("dopri5:rtol=2", "method dopri5: rtol must be less than 1, got 2"),
    ],
)
def test_wrong_methods_are_refused(text, match):
    with pytest.raises(ConfigError, match=match):
        parse_method(text)


def test_a_text_is_the_object_in_the_settings():
    assert Ode(trace="hutchinson:probes=4").trace == Hutchinson(probes=4)
    assert Path(trace="exact").trace == ExactTrace()
    assert Ode().trace == Path().trace == "auto"
    assert Dequantized(DataSpec((2,), -1.0, 1.0, 8), "path:steps=5").method == Path(5)
    assert Ode("dop853").per_sample


def test_a_text_is_the_object_in_a_call(mixture):
    model, ode = mixture(VP()), Ode("bosh3", 1e-2, 1e-2)
    text = "bosh3:rtol=0.01:atol=0.01"
    assert torch.equal(encode(model, POINTS, text).latent, encode(model, POINTS, ode).latent)
    drawn = [sample_with_log_prob(model, (2, 2), method, seed=0).x for method in (text, ode)]
    assert torch.equal(*drawn)
    other = FunctionScore(VP(), model.eps)  # of a mixture itself the cut-off is known
    cut = [
        neglected(other, POINTS, 1e-3, trace=trace, seed=0).std_error
        for trace in (Hutchinson(probes=3), "hutchinson:probes=3")
    ]
    assert torch.equal(*cut)
    assert (cut[0] > 0).all()


def test_codes_need_an_ode(mixture):
    for call in (encode, lambda model, x, method: sample_with_log_prob(model, (2, 2), method)):
        with pytest.raises(TypeError, match="method must be of type Ode.* or its text, got 'path'"):
            call(mixture(VP()), POINTS, "path")


def test_what_is_no_method_or_rule():
    with pytest.raises(TypeError, match="must be of type LikelihoodMethod or its text, got 3"):
        Dequantized(DataSpec((2,), -1.0, 1.0, 8), 3)
    with pytest.raises(TypeError, match="trace must be a TraceRule or its text, got 3"):
        Ode(trace=3)


@pytest.mark.parametrize("function", [log_likelihood, encode, decode])
def test_what_is_no_model(function):
    with pytest.raises(TypeError, match="model must be of type ScoreModel, got str"):
        function("digits-vp", POINTS)
    with pytest.raises(TypeError, match="model must be of type ScoreModel, got str"):
        interpolate("digits-vp", POINTS, POINTS)
    with pytest.raises(TypeError, match="model must be of type ScoreModel, got str"):
        choose_trace("digits-vp", POINTS, seed=0)
    with pytest.raises(TypeError, match="model must be of type ScoreModel, got str"):
        sample_with_log_prob("digits-vp", (2, 2), seed=0)
