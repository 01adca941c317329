"""Exponentials of linear maps as layers: maps by name, the parametrizations that build them, rotations."""
