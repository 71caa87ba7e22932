"""Sources of archives: where the archives are, and how they and their members are read. Nothing here depends on CT."""
