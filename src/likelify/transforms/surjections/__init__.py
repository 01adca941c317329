"""Layers that change the number of elements, or lose or add information: linear, copies, pooling, activations."""
