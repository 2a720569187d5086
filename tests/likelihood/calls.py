"""Calls of a likelihood that mix settings of the method with arguments of the call.

A table of cases can then name either kind.
"""

from dataclasses import dataclass, replace

import torch

from scoresde.batches import Batch
from scoresde.likelihood import Dequantized, LikelihoodMethod, Ode, Path, log_likelihood
from scoresde.likelihood.method import KNOWN, Likelihood

_CALL = ("seed", "noise", "y", "batch", "device", "dtype")


def split(arguments, names=_CALL):
    """The arguments of the call, and the settings of the method."""
    call = {name: value for name, value in arguments.items() if name in names}
    return call, {name: value for name, value in arguments.items() if name not in names}


def by_ode(model, x, **arguments):
    """`log_likelihood` by an `Ode`."""
    call, settings = split(arguments)
    return log_likelihood(model, x, Ode(**settings), **call)


def by_path(model, x, path=None, **arguments):
    """`log_likelihood` by a `Path`, with some settings of it changed."""
    call, settings = split(arguments)
    return log_likelihood(model, x, replace(path or Path(), **settings), **call)


def solve(function, *arguments, **others):
    """`encode`, `decode` and what else takes an `Ode` after the other positional arguments."""
    call, settings = split(others)
    return function(*arguments, Ode(**settings), **call)


def dequantized(model, data, spec, method, **arguments):
    """`log_likelihood` by a `Dequantized`."""
    call, settings = split(arguments, _CALL[:4])
    return log_likelihood(model, data, Dequantized(spec, method, **settings), **call)


def points_of(dequantization, model, k, spec, noise, t, dtype=torch.float32):
    """The points of a whole call in one batch."""
    return dequantization.draw(Batch(slice(0, len(k)), model, noise), k, spec, t, dtype)


@dataclass(frozen=True)
class Known(LikelihoodMethod):
    """A density that is known without a solver: log p(x) and its standard error by a function.

    Args:
        density: (model, x, noise) to log p(x), or to (log p(x), standard error, degrees of
            freedom).
        t_min: Time of the density.
    """

    density: object
    t_min: float = 1e-5

    def check(self, model, x):
        model.first_time(self.t_min)

    def estimate(self, batch, x):
        found = self.density(batch.model, x, batch.noise)
        log_prob, *rest = found if isinstance(found, tuple) else (found,)
        zeros = torch.zeros_like(log_prob)
        std_error, dof = rest or (zeros, zeros + KNOWN)
        return Likelihood(log_prob, std_error, dof, zeros, 0, 0, self.t_min, self, latent=x)
