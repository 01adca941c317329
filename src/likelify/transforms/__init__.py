"""Layers: bijections, surjections and stochastic maps behind one contract (`core.Transform`)."""
