"""Scores in NumPy, each to be checked against the field's own implementation. Nothing here needs JAX."""
