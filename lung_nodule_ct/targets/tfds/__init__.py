"""TFDS: the builder that ``tfds.load("lung_nodule_ct/…")`` finds, and the folder that the command line writes.

TFDS comes first: to import it registers the builder, which imports the other modules here.
"""

import tensorflow_datasets  # noqa: F401
