"""`verify`: whether samplers converge with the orders claimed for them; `check`: score models."""

from .call import verify
from .contract import check
from .findings import CheckReport, Finding

__all__ = ["CheckReport", "Finding", "check", "verify"]
