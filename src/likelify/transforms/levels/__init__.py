"""Exact probabilities of grey levels: mixtures over them, and the pyramid of an image's planes."""
