"""Chips: e-prop in the arithmetic that a neuromorphic chip has."""
