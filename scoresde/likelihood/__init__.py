"""Log-likelihood of continuous and quantized data, in nats and bits/dim."""

from ..ivp import Adaptive
from .dequantize import DiscreteLikelihood, dequantize, discrete_log_likelihood
from .ode import Encoding, Likelihood, bits_per_dim, encode, log_likelihood
from .trace import ExactTrace, Hutchinson, TraceRule, exact_trace, hutchinson_trace

__all__ = [
    "Adaptive",
    "DiscreteLikelihood",
    "Encoding",
    "ExactTrace",
    "Hutchinson",
    "Likelihood",
    "TraceRule",
    "bits_per_dim",
    "dequantize",
    "discrete_log_likelihood",
    "encode",
    "exact_trace",
    "hutchinson_trace",
    "log_likelihood",
]
