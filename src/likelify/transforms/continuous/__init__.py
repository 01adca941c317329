"""Flows in continuous time: the solution of an ordinary differential equation as a layer, and flow matching."""
