"""What commands do after they have read their options; `likelihood_report` does it in Python."""

from .likelihood.call import likelihood_report

__all__ = ["likelihood_report"]
