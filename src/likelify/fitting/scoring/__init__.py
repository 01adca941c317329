"""Scores of items: their log-likelihood, its error, and its rank among held-out items; in memory and in files."""
