"""Graphs that are simulated, some of them with densities that are known, and example graphs of other packages."""
