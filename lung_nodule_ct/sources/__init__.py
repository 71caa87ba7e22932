"""Where the archives are, and how one of them is opened. Knows nothing of CT."""
