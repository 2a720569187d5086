"""The trace of a Jacobian: exact, estimated with random probes, with a control variate."""
