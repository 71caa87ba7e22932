"""From a DOI to a training step: the cross spatio-temporal pathology-based lung nodule CT dataset as typed data.

Importing this package makes ``datasets.load_dataset("lung_nodule_ct", ...)`` and ``tfds.load("lung_nodule_ct/...")`` build from the
published archives. The names in ``__all__`` are the public API. They are imported at their first use, so that importing the package
takes little time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.targets.registration import register

if TYPE_CHECKING:
    from lung_nodule_ct import imaging as imaging
    from lung_nodule_ct import testing as testing
    from lung_nodule_ct import torch as torch
    from lung_nodule_ct.declaration.configs import CONFIGS
    from lung_nodule_ct.errors import LungNoduleCTError
    from lung_nodule_ct.geometry.boxes import convert_boxes
    from lung_nodule_ct.geometry.frame import Frame
    from lung_nodule_ct.imaging.nodule_growth import growth
    from lung_nodule_ct.imaging.scan_evidence import evidence
    from lung_nodule_ct.preview.show import show
    from lung_nodule_ct.read.decoded import decoded
    from lung_nodule_ct.read.sequences import PatientSequence, patient_sequences
    from lung_nodule_ct.read.verification import verify
    from lung_nodule_ct.read.volumes import volumes
    from lung_nodule_ct.targets.loading import load, prepare

    __version__: str

_MODULES = {
    "CONFIGS": "declaration.configs",
    "Frame": "geometry.frame",
    "LungNoduleCTError": "errors",
    "PatientSequence": "read.sequences",
    "convert_boxes": "geometry.boxes",
    "decoded": "read.decoded",
    "evidence": "imaging.scan_evidence",
    "growth": "imaging",
    "load": "targets.loading",
    "patient_sequences": "read.sequences",
    "prepare": "targets.loading",
    "show": "preview.show",
    "verify": "read.verification",
    "volumes": "read.volumes",
}
_PUBLIC_PACKAGES = ("imaging", "testing", "torch")

__all__ = [
    "CONFIGS",
    "Frame",
    "LungNoduleCTError",
    "PatientSequence",
    "convert_boxes",
    "decoded",
    "evidence",
    "growth",
    "load",
    "patient_sequences",
    "prepare",
    "show",
    "verify",
    "volumes",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 -- reading metadata takes longer than importing the package

        value: Any = version("lung_nodule_ct")
    elif name in _MODULES:
        value = getattr(import_module(f"lung_nodule_ct.{_MODULES[name]}"), name)
    elif name in _PUBLIC_PACKAGES:
        value = import_module(f"lung_nodule_ct.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_PUBLIC_PACKAGES, "__version__"])


register()
