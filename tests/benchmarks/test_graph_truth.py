from benchmarks.graph_truth import FAR, point_sets

from likelify.data.simulated.mixtures import MIXTURES


def test_closed_forms_are_compared_with_exact_densities():
    entries = {entry.name: entry for entry in point_sets(quick=True)}
    for name in MIXTURES:
        assert entries[f"{name}: apart"].value < FAR
        assert 0 < entries[f"{name}: its standard error"].value < 0.05
