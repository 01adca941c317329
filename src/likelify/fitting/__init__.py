"""Fitting: one loop, the run folder, and held-out figures."""
