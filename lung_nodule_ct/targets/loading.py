"""``load`` and ``prepare``: a config straight from the archives, through the cache of ``datasets``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lung_nodule_ct.declaration.configs import DEFAULT_CONFIG, get_config
from lung_nodule_ct.declaration.labels import SplitBy
from lung_nodule_ct.targets.huggingface import DATASET_NAME, HuggingFaceBuilder


def load(
    config: str = DEFAULT_CONFIG.name,
    *,
    source: str | os.PathLike[str] | None = None,
    split: str | None = None,
    streaming: bool = False,
    split_by: SplitBy | str = SplitBy.PUBLISHED,
    keep_source_names: bool = False,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Any:
    """Load a config straight from the archives, through the cache of ``datasets``.

    Args:
        config: One of the six names.
        source: A folder of archives. Without it ``LUNG_NODULE_CT_SOURCE`` names one; without that, what was prepared
            before serves; else the archives come from the cache of downloads and from Zenodo.
        split: One split; without it all of them.
        streaming: Read while iterating, prepare nothing.
        split_by: ``published``, or ``patient`` for splits without leaks.
        keep_source_names: Add the column ``source_name``, and keep what pictures say beside their pixels; both may spell calendar dates.
        num_proc: Processes that prepare.
        cache_dir: In place of the cache of ``datasets``.

    Returns:
        A ``Dataset`` or, without ``split``, a ``DatasetDict``; their iterable kin where it is streamed.

    Raises:
        UnknownConfigError: There is no such config.
        SourceError: The folder does not exist; or offline, and something is not in the cache.
        DownloadError: Zenodo does not give what the record promises.
        ArchiveNotFoundError: An archive that the config reads is missing.
        ArchiveError: An archive is no zip archive, or breaks a limit.
        MemberError: A member is damaged.
    """
    builder = _builder(
        config, data_dir=source, split_by=split_by, keep_source_names=keep_source_names, cache_dir=cache_dir
    )
    if streaming:
        return builder.as_streaming_dataset(split)
    builder.download_and_prepare(num_proc=num_proc)
    return builder.as_dataset(split)


def prepare(
    config: str,
    *,
    source: str | os.PathLike[str] | None = None,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Warm the cache of ``datasets``, so that a plain ``load_dataset("lung_nodule_ct", config)`` works anywhere.

    Args:
        config: One of the six names.
        source: A folder of archives. Without it ``LUNG_NODULE_CT_SOURCE`` names one; without that, they come from the
            cache of downloads and from Zenodo.
        num_proc: Processes that prepare.
        cache_dir: In place of the cache of ``datasets``.

    Returns:
        The folder of the prepared data, ``findings.json`` beside them.

    Raises:
        UnknownConfigError: There is no such config.
        SourceError: The folder does not exist; or offline, and something is not in the cache.
        DownloadError: Zenodo does not give what the record promises.
        ArchiveNotFoundError: An archive that the config reads is missing.
        ArchiveError: An archive is no zip archive, or breaks a limit.
        MemberError: A member is damaged.
    """
    return Path(prepared(config, source=source, num_proc=num_proc, cache_dir=cache_dir).cache_dir)


def prepared(
    config: str,
    *,
    source: str | os.PathLike[str] | None = None,
    num_proc: int | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> HuggingFaceBuilder:
    """The builder of a cache that is warm; its ``found`` is what was found in warming it. See :func:`prepare`."""
    builder = _builder(config, archives=source, cache_dir=cache_dir)
    builder.download_and_prepare(num_proc=num_proc)
    return builder


def _builder(config: str, **kwargs: Any) -> HuggingFaceBuilder:
    get_config(config)
    options = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in kwargs.items()}
    if options.get("split_by") is not None:
        options["split_by"] = str(SplitBy(options["split_by"]))
    defaults = {"split_by": str(SplitBy.PUBLISHED), "keep_source_names": False}
    given = {name: value for name, value in options.items() if value is not None and defaults.get(name) != value}
    return HuggingFaceBuilder(config_name=config, dataset_name=DATASET_NAME, **given)
