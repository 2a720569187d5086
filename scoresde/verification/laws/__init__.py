"""The laws that `scoresde.check` tests, one file for each subject.

A law is a function of a `Probe` that returns one `Finding`, or None if it does not concern the
model. `check` turns an error inside it into a failure.
"""
