"""For TFDS's own tool: ``tfds build builders/lung_nodule_ct --config=det2d_1.25mm``. It only hands on.

``checksums.tsv`` is empty because nothing is downloaded by TFDS: the package proves every archive by its record's md5.
"""

from lung_nodule_ct.targets.tfds.builder import LungNoduleCT


class Builder(LungNoduleCT, skip_registration=True):
    """The builder of the package, which is registered already."""

    name = "lung_nodule_ct"
