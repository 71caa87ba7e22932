"""From a finished build to the Hub.

:mod:`.card` writes the text of the card, :mod:`.card_folder` the complete card with pictures, a preview and Croissant;
:mod:`.publication` checks and uploads a build.
"""
