"""One file format a module, read from bytes in memory. Knows nothing of configs."""
