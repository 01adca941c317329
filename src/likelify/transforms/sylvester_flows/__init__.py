"""Sylvester flows: a triangular residual in a changed basis, inverted at the speed of a wavefront."""
