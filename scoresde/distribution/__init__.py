"""A score model as a distribution of `torch.distributions`.

The first line is p(x), the second p(x | y):

    d = scoresde.Distribution(model)
    d = scoresde.Distribution(model, y)
    d.sample(100), d.rsample(100), d.log_prob(x)
"""

from .view import Distribution

__all__ = ["Distribution"]
