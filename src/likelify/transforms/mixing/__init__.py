"""Layers that mix channels and positions: 1x1, Woodbury, emerging and circular convolutions."""
