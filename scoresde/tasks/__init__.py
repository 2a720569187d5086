"""What commands do after they have read their options; three of them are functions in Python."""

from .likelihood.call import likelihood_report
from .students.runs import distill
from .train.fit import fit

__all__ = ["distill", "fit", "likelihood_report"]
