"""Archives: where they are, how they are opened, and how their members are read."""
