"""`doctor`: whether a model means what it claims about its network, measured on data."""

from .call import doctor
from .report import DoctorReport

__all__ = ["DoctorReport", "doctor"]
