"""For TFDS's own tool: ``tfds build builders/lung_nodule_ct --config=det2d_1.25mm``. It only hands on."""

from etils import epath

from lung_nodule_ct.targets.tfds.builder import LungNoduleCT


class Builder(LungNoduleCT, skip_registration=True):
    """The builder of the package, which is registered already."""

    name = "lung_nodule_ct"
    pkg_dir_path = epath.Path(__file__).parent
