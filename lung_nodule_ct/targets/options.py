"""The options of a build, checked against each other, and the layout and engine that they select."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from lung_nodule_ct.declaration.computed import Computed, KeySlices
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.declaration.manifest import Format, VolumeCodec
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.system.imports import optional_imports
from lung_nodule_ct.system.object_store import ObjectFolder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lung_nodule_ct.declaration.configs import Config
    from lung_nodule_ct.targets.engine import Engine
    from lung_nodule_ct.targets.shards import Layout


class EngineName(StrEnum):
    """What runs a build."""

    LOCAL = "local"
    BEAM = "beam"


@dataclass(frozen=True)
class BuildOptions:
    """How to build.

    Attributes:
        format: The file format.
        split_by: Use the published splits, or split by patient, without leakage.
        keep_source_names: Add the column ``source_name``, and keep the metadata of pictures. Both may identify patients.
        strict: Stop at a finding of error grade; nothing is written.
        num_proc: Number of workers: processes if there are enough shards, otherwise threads.
        volume_codec: How voxels are stored in Parquet and Arrow.
        engine: This machine, or Apache Beam.
        beam_options: Options of Apache Beam, as on its command line.
        make_lung_masks: Make a lung mask for each scan without a published one that can be used.
        key_slices: Choose the key slices by the annotated centre, or by evidence in the voxels.
        track: Follow the nodules over the scans of each patient, in ``longitudinal``.
        limit: Build only the first examples of each split, so many. Manifest, findings and card say so.

    Raises:
        OptionError: Options do not go together. ``option`` names the field.
        ValueError: A value is not one of its choices.

    Example:
        >>> BuildOptions(format="arrow").split_by
        <SplitBy.PUBLISHED: 'published'>
    """

    format: Format = Format.PARQUET
    split_by: SplitBy = SplitBy.PUBLISHED
    keep_source_names: bool = False
    strict: bool = False
    num_proc: int = 1
    volume_codec: VolumeCodec = VolumeCodec.RAW
    engine: EngineName = EngineName.LOCAL
    beam_options: str = ""
    make_lung_masks: bool = False
    key_slices: KeySlices = KeySlices.CENTRE
    track: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        choices = {
            "format": Format,
            "split_by": SplitBy,
            "volume_codec": VolumeCodec,
            "engine": EngineName,
            "key_slices": KeySlices,
        }
        for name, choice in choices.items():
            object.__setattr__(self, name, choice(getattr(self, name)))
        if self.num_proc < 1:
            raise OptionError("num_proc", "expected at least 1", got=self.num_proc)
        if self.limit is not None and self.limit < 1:
            raise OptionError("limit", "expected at least 1", got=self.limit)
        if self.num_proc > 1 and self.engine is EngineName.BEAM:
            raise OptionError(
                "num_proc", "Beam has its own option for workers", remedy="name it among the options of Beam"
            )
        if self.beam_options and self.engine is not EngineName.BEAM:
            raise OptionError("beam_options", "only with the engine beam", got=f"engine {self.engine}")
        try:
            shlex.split(self.beam_options)
        except ValueError as error:
            raise OptionError("beam_options", f"cannot be split into words ({error})", got=self.beam_options) from error
        if self.volume_codec is not VolumeCodec.RAW and self.format.is_tfds:
            raise OptionError("volume_codec", "only for Parquet and Arrow", got=f"format {self.format}")
        if self.keep_source_names and self.format.is_tfds:
            raise OptionError(
                "keep_source_names",
                "TFDS only reads the columns that its builder declares",
                expected="format parquet or arrow",
                got=f"format {self.format}",
            )

    @property
    def computed(self) -> Computed:
        """What is computed from the voxels of scans."""
        return Computed(self.make_lung_masks, self.key_slices, self.track)

    def check(self, configs: Sequence[Config]) -> None:
        """Check that options that only scans have are used with scans.

        Raises:
            OptionError: None of the configs has what an option computes.
        """
        has_scans = any("lung_mask" in config.schema.names for config in configs)
        needed = {
            "make_lung_masks": (self.make_lung_masks, has_scans),
            "key_slices": (self.key_slices is KeySlices.EVIDENCE, has_scans),
            "track": (self.track, any(config.longitudinal for config in configs)),
        }
        for option, (is_used, fits) in needed.items():
            if is_used and not fits:
                kind = (
                    "the scans of longitudinal" if option == "track" else "scans: det3d_1.25mm, det3d_5mm, longitudinal"
                )
                names = ", ".join(config.name for config in configs)
                raise OptionError(option, f"only for {kind}", got=names)

    def layout(self, num_configs: int) -> Layout:
        """Return the layout of the output folder.

        Args:
            num_configs: Number of configs in the folder. A folder of one Arrow config is its ``DatasetDict``.

        Raises:
            MissingExtraError: The format needs the extra ``tfds``.
        """
        if self.format is Format.ARROW:
            from lung_nodule_ct.targets.arrow import ArrowLayout  # noqa: PLC0415 -- one format imports one writer

            is_packed = self.volume_codec is not VolumeCodec.RAW
            return ArrowLayout(num_configs > 1, self.volume_codec, cpu_bound=is_packed)
        if self.format is Format.PARQUET:
            from lung_nodule_ct.targets.parquet import ParquetLayout  # noqa: PLC0415

            return ParquetLayout(self.volume_codec)
        with optional_imports("tfds", f"--format {self.format}"):
            from lung_nodule_ct.targets.tfds.folder import TfdsLayout  # noqa: PLC0415

        return TfdsLayout("tfrecord" if self.format is Format.TFRECORD else "array_record")

    def open_engine(self, jobs: Path | ObjectFolder) -> Engine:
        """Return the engine, as a context manager.

        Args:
            jobs: Folder for the files of jobs on other machines; or its URL, if shards are not to be kept on this machine.

        Raises:
            MissingExtraError: The engine needs the extra ``beam``.
        """
        if self.engine is EngineName.LOCAL:
            if not isinstance(jobs, ObjectFolder):
                from lung_nodule_ct.targets.engine import LocalEngine  # noqa: PLC0415

                return LocalEngine(self.num_proc)
            from lung_nodule_ct.targets.upload_engine import UploadEngine  # noqa: PLC0415

            return UploadEngine(self.num_proc, jobs)
        with optional_imports("beam", "--engine beam"):
            from lung_nodule_ct.targets.beam import BeamEngine  # noqa: PLC0415

        return BeamEngine(shlex.split(self.beam_options), jobs=jobs)
