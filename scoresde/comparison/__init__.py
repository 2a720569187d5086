"""The comparison of samplers: `bench`, its cells and its report."""

from .call import Comparison, bench

__all__ = ["Comparison", "bench"]
