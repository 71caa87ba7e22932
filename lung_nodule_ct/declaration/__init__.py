"""The declaration: what the dataset is, without a byte of it. Frozen, self-validating, no I/O."""
