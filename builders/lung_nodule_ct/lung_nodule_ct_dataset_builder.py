"""For the command of TFDS: ``tfds build builders/lung_nodule_ct --config=det2d_1.25mm``.

``checksums.tsv`` is empty because TFDS downloads nothing: the package verifies every archive by the md5 of its record.
"""

from lung_nodule_ct.targets.tfds.builder import TfdsBuilder


class Builder(TfdsBuilder, skip_registration=True):
    """The builder of the package, which is registered already."""

    name = "lung_nodule_ct"
