"""Reproductions of the papers' tables and figures: resumable cells, honest statistics, one report.

`likelify reproduce NAME` runs them. An experiment is a set of cells, one for each method, seed and data set; each cell
writes one JSON file, and the report is made from these files alone.
"""
