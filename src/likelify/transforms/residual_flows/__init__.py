"""Residual flows: `x + g(x)` with a network that contracts."""
