"""What commands do after they have read their options; two of them are functions in Python."""

from .likelihood.call import likelihood_report
from .train.fit import fit

__all__ = ["fit", "likelihood_report"]
