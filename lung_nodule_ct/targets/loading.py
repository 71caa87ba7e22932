"""``load`` and ``prepare``: a config straight from the archives, through the cache of ``datasets``."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from lung_nodule_ct.declaration.computed import KeySlices
from lung_nodule_ct.declaration.configs import DEFAULT_CONFIG, get_config
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.errors import OptionError
from lung_nodule_ct.read.verification import verify as verify_files
from lung_nodule_ct.targets.huggingface import DATASET_NAME, HuggingFaceBuilder, LungNoduleCTConfig

if TYPE_CHECKING:
    from typing import Unpack

    import datasets

_OPTIONS = ("split_by", "keep_source_names", "make_lung_masks", "key_slices", "track")


class LoadOptions(TypedDict, total=False):
    """The options of :func:`load` that do not change the type of its result."""

    source: str | os.PathLike[str] | None
    split_by: SplitBy | str
    keep_source_names: bool
    make_lung_masks: bool
    key_slices: KeySlices | str
    track: bool
    num_proc: int | None
    cache_dir: str | os.PathLike[str] | None
    verify: bool


@overload
def load(
    config: str = ..., *, split: None = None, streaming: Literal[False] = False, **options: Unpack[LoadOptions]
) -> datasets.DatasetDict: ...
@overload
def load(
    config: str = ..., *, split: str, streaming: Literal[False] = False, **options: Unpack[LoadOptions]
) -> datasets.Dataset: ...
@overload
def load(
    config: str = ..., *, split: None = None, streaming: Literal[True], **options: Unpack[LoadOptions]
) -> datasets.IterableDatasetDict: ...
@overload
def load(
    config: str = ..., *, split: str, streaming: Literal[True], **options: Unpack[LoadOptions]
) -> datasets.IterableDataset: ...
@overload
def load(
    config: str = ..., *, split: str | None = None, streaming: bool = False, **options: Unpack[LoadOptions]
) -> datasets.Dataset | datasets.DatasetDict | datasets.IterableDataset | datasets.IterableDatasetDict: ...
def load(
    config: str = DEFAULT_CONFIG.name,
    *,
    source: str | os.PathLike[str] | None = None,
    split: str | None = None,
    streaming: bool = False,
    split_by: SplitBy | str = SplitBy.PUBLISHED,
    keep_source_names: bool = False,
    make_lung_masks: bool = False,
    key_slices: KeySlices | str = KeySlices.CENTRE,
    track: bool = False,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    verify: bool = False,
) -> Any:
    """Load a config straight from the archives, through the cache of Hugging Face ``datasets``.

    Args:
        config: Name of the config, for example ``det2d_1.25mm``; see :data:`lung_nodule_ct.CONFIGS`.
        source: A folder of archives, or its URL. Without it the environment variable ``LUNG_NODULE_CT_SOURCE`` names one; without that,
            the cache of the config that was prepared last is used, from whatever archives: a notice names them. If there is none, the archives come from the cache of downloads and from Zenodo.
        split: One split; by default all splits.
        streaming: Read while iterating, and prepare nothing.
        split_by: ``published``, or ``patient`` for splits without leakage.
        keep_source_names: Add the column ``source_name``, and keep the metadata of pictures. Both may identify patients.
        make_lung_masks: Make a lung mask for each scan without a published one that can be used. This and the next two options need the
            extra ``imaging``, if they are used.
        key_slices: Choose the key slices by the annotated ``centre``, or by ``evidence`` in the voxels.
        track: Follow the nodules over the scans of each patient, in ``longitudinal``.
        num_proc: Number of processes that prepare.
        cache_dir: A folder to use instead of the cache of ``datasets``.
        verify: Compare every file of the prepared cache with the size and the hash that it had when it was written.

    Returns:
        A ``Dataset``, or a ``DatasetDict`` without ``split``; with ``streaming`` their iterable counterparts.

    Raises:
        UnknownConfigError: The config is unknown.
        OptionError: ``verify`` is used with ``streaming``, or ``split_by`` is unknown.
        SourceError: The folder does not exist, or an archive is not in the cache while offline.
        DownloadError: Zenodo does not deliver what the record promises.
        ArchiveNotFoundError: An archive that the config reads is missing.
        ArchiveError: A file is not a zip archive, or exceeds a limit.
        MemberError: A member is damaged.
        BuildFolderError: With ``verify``, a file of the cache is not as it was written.

    Example:
        >>> import lung_nodule_ct
        >>> slices = lung_nodule_ct.load("det2d_1.25mm", source="dummy_data", split="train")
        >>> slices[0]["objects"]
        [{'bbox': [57.0, 32.0, 61.0, 36.0], 'category': 0, 'area': 16.0}]
    """
    if verify and streaming:
        raise OptionError(
            "verify",
            "a stream stores no files that could be compared; every member is checked by its CRC when it is read",
            remedy="use verify without streaming",
        )
    builder = _builder(
        config,
        data_dir=source,
        split_by=split_by,
        keep_source_names=keep_source_names,
        make_lung_masks=make_lung_masks,
        key_slices=str(KeySlices(key_slices)),
        track=track,
        cache_dir=cache_dir,
    )
    if streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare(num_proc=num_proc)
    if verify:
        verify_files(builder.cache_dir).raise_faults()
    return builder.as_dataset(split)


def prepare(
    config: str,
    *,
    source: str | os.PathLike[str] | None = None,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Prepare the cache of ``datasets``, so that ``load_dataset("lung_nodule_ct", config)`` works without an import of this package.

    Args:
        config: Name of the config, for example ``det2d_1.25mm``.
        source: A folder of archives, or its URL. Without it the environment variable ``LUNG_NODULE_CT_SOURCE`` names one; without that,
            the archives come from the cache of downloads and from Zenodo.
        num_proc: Number of processes that prepare.
        cache_dir: A folder to use instead of the cache of ``datasets``.

    Returns:
        The folder with the prepared data and ``findings.json``.

    Raises:
        UnknownConfigError: The config is unknown.
        SourceError: The folder does not exist, or an archive is not in the cache while offline.
        DownloadError: Zenodo does not deliver what the record promises.
        ArchiveNotFoundError: An archive that the config reads is missing.
        ArchiveError: A file is not a zip archive, or exceeds a limit.
        MemberError: A member is damaged.

    Example:
        >>> import lung_nodule_ct
        >>> folder = lung_nodule_ct.prepare("cls_1.25mm", source="dummy_data")
        >>> (folder / "findings.json").is_file()
        True
    """
    return Path(prepare_builder(config, source=source, num_proc=num_proc, cache_dir=cache_dir).cache_dir)


def prepare_builder(
    config: str,
    *,
    source: str | os.PathLike[str] | None = None,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> HuggingFaceBuilder:
    """Prepare the cache like :func:`prepare`, and return its builder, which has the findings."""
    builder = _builder(config, archives=source, cache_dir=cache_dir)
    builder.download_and_prepare(num_proc=num_proc)
    return builder


def _builder(config: str, **kwargs: Any) -> HuggingFaceBuilder:
    get_config(config)
    options = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in kwargs.items()}
    if options.get("split_by") is not None:
        if options["split_by"] not in set(SplitBy):
            problem = f"there is no way to split by {options['split_by']!r}"
            raise OptionError("split_by", problem, expected=" or ".join(SplitBy))
        options["split_by"] = str(SplitBy(options["split_by"]))
    defaults = {field.name: field.default for field in fields(LungNoduleCTConfig) if field.name in _OPTIONS}
    given = {name: value for name, value in options.items() if value is not None and defaults.get(name) != value}
    return HuggingFaceBuilder(config_name=config, dataset_name=DATASET_NAME, **given)
