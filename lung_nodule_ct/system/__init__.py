"""What the package needs of the machine: files, memory, compression, optional imports and progress."""
