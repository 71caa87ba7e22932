"""Synthetic archives with known truth, for tests and benchmarks, ours and those of users."""
