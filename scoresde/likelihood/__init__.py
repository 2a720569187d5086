"""Log-likelihood of continuous and quantized data, in nats and bits/dim."""

from .budget import Budget, likelihood_budget, prior_mismatch
from .budget_difference import budget_difference
from .cutoff import CutOff, GaussianNoising, decoder_std, neglected
from .dequantize import (
    Continuous,
    Dequantization,
    TruncatedNormalDequantization,
    UniformDequantization,
    dequantize,
)
from .dequantized import Bound, Dequantized
from .interpolation import (
    Interpolation,
    ScoredInterpolation,
    interpolate,
    interpolate_with_log_prob,
    spherical_interpolation,
)
from .ito import Ito
from .latent import Encoding, RoundTrip, decode, encode, round_trip
from .mean_budget import MeanBudget, mean_budget
from .method import Likelihood, LikelihoodMethod
from .methods import METHODS, log_likelihood, parse_method
from .ode import Ode
from .path.path import Path
from .scored import ScoredSamples, sample_with_log_prob
from .trace.choice import TraceChoice, TraceCost, TraceSearch, choose_trace
from .trace.control import fit_gaussian, gaussian_control
from .trace.jacobian import Jacobian, KnownJacobian, linearize
from .trace.names import TRACES, parse_trace
from .trace.probing import Probing
from .trace.rules import ExactTrace, Hutchinson, TraceRule
from .trace.sketch import HutchPP, XTrace
from .vlb.bound import ContinuousVLB, VariationalBound
from .vlb.chain import DDPMVLB, optimal_variances

__all__ = [
    "DDPMVLB",
    "METHODS",
    "TRACES",
    "Bound",
    "Budget",
    "Continuous",
    "ContinuousVLB",
    "CutOff",
    "Dequantization",
    "Dequantized",
    "Encoding",
    "ExactTrace",
    "GaussianNoising",
    "HutchPP",
    "Hutchinson",
    "Interpolation",
    "Ito",
    "Jacobian",
    "KnownJacobian",
    "Likelihood",
    "LikelihoodMethod",
    "MeanBudget",
    "Ode",
    "Path",
    "Probing",
    "RoundTrip",
    "ScoredInterpolation",
    "ScoredSamples",
    "TraceChoice",
    "TraceCost",
    "TraceRule",
    "TraceSearch",
    "TruncatedNormalDequantization",
    "UniformDequantization",
    "VariationalBound",
    "XTrace",
    "budget_difference",
    "choose_trace",
    "decode",
    "decoder_std",
    "dequantize",
    "encode",
    "fit_gaussian",
    "gaussian_control",
    "interpolate",
    "interpolate_with_log_prob",
    "likelihood_budget",
    "linearize",
    "log_likelihood",
    "mean_budget",
    "neglected",
    "optimal_variances",
    "parse_method",
    "parse_trace",
    "prior_mismatch",
    "round_trip",
    "sample_with_log_prob",
    "spherical_interpolation",
]
