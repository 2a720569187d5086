"""Log-likelihood of continuous and quantized data, in nats and bits/dim."""

from ..ivp import Adaptive, AdaptivePerSample
from .bound import DDPMVLB, ContinuousVLB, VariationalBound, optimal_variances
from .budget import Budget, likelihood_budget, prior_mismatch
from .choice import TraceChoice, TraceCost, choose_trace
from .control import fit_gaussian, gaussian_control
from .cutoff import CutOff, GaussianNoising, decoder_std, neglected
from .density import OdeDensity, PathDensity
from .dequantize import (
    Continuous,
    Dequantization,
    TruncatedNormalDequantization,
    UniformDequantization,
    dequantize,
)
from .discrete import DiscreteLikelihood, discrete_log_likelihood, in_bits
from .jacobian import Jacobian, KnownJacobian, linearize
from .jensen import Bound, jensen_bound
from .latent import (
    Decoding,
    Interpolation,
    RoundTrip,
    decode,
    interpolate,
    round_trip,
    spherical_interpolation,
)
from .mean_budget import MeanBudget, mean_budget
from .ode import Encoding, Likelihood, bits_per_dim, encode, log_likelihood
from .path import PathLikelihood, PathQuadrature, path_log_likelihood
from .probing import Probing
from .scored import ScoredSamples, sample_with_log_prob
from .sketch import HutchPP, XTrace
from .trace import ExactTrace, Hutchinson, TraceRule

__all__ = [
    "Adaptive",
    "AdaptivePerSample",
    "Bound",
    "Budget",
    "Continuous",
    "ContinuousVLB",
    "CutOff",
    "DDPMVLB",
    "Decoding",
    "Dequantization",
    "DiscreteLikelihood",
    "Encoding",
    "ExactTrace",
    "GaussianNoising",
    "HutchPP",
    "Hutchinson",
    "Interpolation",
    "Jacobian",
    "KnownJacobian",
    "Likelihood",
    "MeanBudget",
    "OdeDensity",
    "PathDensity",
    "PathLikelihood",
    "PathQuadrature",
    "Probing",
    "RoundTrip",
    "ScoredSamples",
    "TraceChoice",
    "TraceCost",
    "TraceRule",
    "TruncatedNormalDequantization",
    "UniformDequantization",
    "VariationalBound",
    "XTrace",
    "bits_per_dim",
    "choose_trace",
    "decode",
    "decoder_std",
    "dequantize",
    "discrete_log_likelihood",
    "encode",
    "fit_gaussian",
    "gaussian_control",
    "in_bits",
    "interpolate",
    "jensen_bound",
    "linearize",
    "likelihood_budget",
    "log_likelihood",
    "mean_budget",
    "neglected",
    "optimal_variances",
    "path_log_likelihood",
    "prior_mismatch",
    "round_trip",
    "sample_with_log_prob",
    "spherical_interpolation",
]
