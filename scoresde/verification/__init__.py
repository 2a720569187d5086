"""`verify` and `certify`: whether samplers do what is claimed of them; `check`: score models."""

from .call import verify
from .certificate import certify
from .contract import check
from .findings import CheckReport, Finding

__all__ = ["CheckReport", "Finding", "certify", "check", "verify"]
