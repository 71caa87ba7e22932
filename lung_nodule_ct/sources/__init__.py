"""Archives: where they are, how they are opened, and how their members are read. Nothing here depends on CT."""
