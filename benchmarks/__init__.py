"""Benchmarks of speed and memory. Compared programs run in turn, because ratios vary less than times."""
