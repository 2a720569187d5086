"""Whether samplers and models do what is claimed of them.

- `verify`: whether samplers converge with the orders claimed for them
- `certify`: whether a sampler of any library does what is said of it
- `check`: whether score models keep the rules of the interface, on random points
- `doctor`: whether a network means what its model claims, on data
"""

from .call import verify
from .certificate import certify
from .contract import check
from .diagnosis import DoctorReport, doctor
from .findings import CheckReport, Finding

__all__ = ["CheckReport", "DoctorReport", "Finding", "certify", "check", "doctor", "verify"]
