"""From a finished build to the Hub: the card, Croissant, checks before an upload, and the upload."""
