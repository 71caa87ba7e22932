"""From a DOI to a training step: the cross spatio-temporal pathology-based lung nodule CT dataset as typed data.

Importing this package makes ``datasets.load_dataset("lung_nodule_ct", …)`` build from a folder of archives. What stands
in ``__all__`` is what we promise; it is imported when it is first used, so that importing the package stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.targets.registration import register

if TYPE_CHECKING:
    from lung_nodule_ct.declaration.configs import CONFIGS
    from lung_nodule_ct.errors import LungNoduleCTError
    from lung_nodule_ct.geometry.boxes import convert_boxes
    from lung_nodule_ct.geometry.frame import Frame
    from lung_nodule_ct.preview.show import show
    from lung_nodule_ct.read.sequences import PatientSequence, patient_sequences
    from lung_nodule_ct.read.volumes import volumes
    from lung_nodule_ct.targets.loading import load, prepare

_HOMES = {
    "CONFIGS": "lung_nodule_ct.declaration.configs",
    "Frame": "lung_nodule_ct.geometry.frame",
    "LungNoduleCTError": "lung_nodule_ct.errors",
    "PatientSequence": "lung_nodule_ct.read.sequences",
    "convert_boxes": "lung_nodule_ct.geometry.boxes",
    "load": "lung_nodule_ct.targets.loading",
    "patient_sequences": "lung_nodule_ct.read.sequences",
    "prepare": "lung_nodule_ct.targets.loading",
    "show": "lung_nodule_ct.preview.show",
    "volumes": "lung_nodule_ct.read.volumes",
}

__all__ = [
    "CONFIGS",
    "Frame",
    "LungNoduleCTError",
    "PatientSequence",
    "convert_boxes",
    "load",
    "patient_sequences",
    "prepare",
    "show",
    "volumes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


register()
