"""Files of a source that are not an archive of the dataset: what they seem to be, and how to make an archive of them.

Only names are looked at. Files of the same kind in a folder, and the parts of one archive, are described together, so that a folder with
an unpacked archive gives a few entries and not one per slice. Nothing here is ever read.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lung_nodule_ct.declaration.archives import ARCHIVES, ArchiveSpec, specs_of_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lung_nodule_ct.sources.zip_directory import Archive

_LITTER = re.compile(r"\..*|thumbs\.db|desktop\.ini|.*\.(?:proof|md5|sha256)", re.IGNORECASE)
"""Hidden files, files of desktops, and checksums."""
_QUERY = re.compile(r"(?P<stem>.+)\.zip(?:[?@&_]|%3F)[^/]*", re.IGNORECASE)
_NUMBERED = re.compile(r"(?P<stem>.+)\.zip\.[1-9]\d?", re.IGNORECASE)
_COPY = re.compile(
    r"(?:copy of |kopie von )?(?P<stem>.+?)(?:[ _-]*(?:copy|kopie|copie|副本|拷贝))?(?:[ _]*[(\uff08]\d+[)\uff09])?\.zip",
    re.IGNORECASE,
)
_UNFINISHED = re.compile(
    r"(?P<stem>.+)\.zip(?:\.[^.]+)?\.(?:crdownload|download|opdownload|part|partial|aria2|tmp|!ut|!qb)", re.IGNORECASE
)
_PARTS: Final = {
    "zip": re.compile(r"(?P<stem>.+)\.z\d{2,4}", re.IGNORECASE),
    "cut": re.compile(
        r"(?P<stem>.+?)(?:\.zip)?\.(?:\d{3}|part\d{1,3}|part[a-z]{2})|(?P<other>.+)\.zip\.?[a-z]{2}", re.IGNORECASE
    ),
    "unpacked": re.compile(r"(?P<stem>.+?)(?:\.part\d{1,4}\.rar|\.r\d{2,3}|\.7z\.\d{3})", re.IGNORECASE),
}
_PACKED = re.compile(r"(?P<stem>.+?)\.(?:rar|7z|zipx|t[gbx]z|tar(?:\.\w{1,4})?|gz|bz2|xz|zst|iso)", re.IGNORECASE)
_LOOSE: Final = frozenset(
    ("mhd", "mha", "raw", "zraw", "img", "bmp", "jpg", "jpeg", "png", "tif", "tiff", "xml", "csv", "xlsx", "dcm", "nii")
)
"""Extensions of the files that the archives hold."""
_INNER: Final = frozenset((".zip", ".rar", ".7z", ".tar", ".tgz"))
"""Extensions of archives inside an archive. A ``.gz`` may be the data file of a volume."""
_MAX_PARTS = 5
"""Parts of an archive that are listed."""
_STEMS: Final = {spec.name.removesuffix(".zip").lower(): spec for spec in ARCHIVES}


@dataclass(frozen=True, slots=True)
class UnrecognisedFile:
    """A file of a source, or several of the same kind, that is not read.

    Attributes:
        name: Its path in the source; for several files their folder and extension.
        problem: What it seems to be.
        remedy: What the user can do about it; empty if it is not part of the dataset.
        specs: The archives that it may be, or may be a part of.
        count: Number of files.
    """

    name: str
    problem: str
    remedy: str = ""
    specs: tuple[ArchiveSpec, ...] = ()
    count: int = 1

    @property
    def kind(self) -> str:
        """The archives that it may be, otherwise its extension: its name may identify a person."""
        if self.specs:
            return ", ".join(spec.name for spec in self.specs)
        extension = re.search(r"\.[a-z][a-z0-9]{1,5}$", self.name.lower())
        return f"*{extension[0]}" if extension else "*"

    def __str__(self) -> str:
        several = f" ({self.count:,} files)" if self.count > 1 else ""
        return f"{self.name}{several}: {self.problem}" + (f"; {self.remedy}" if self.remedy else "")


def describe_unrecognised(paths: Iterable[str], broken_links: Iterable[str] = ()) -> tuple[UnrecognisedFile, ...]:
    """Describe the files of a source that no archive matches.

    Args:
        paths: Their paths in the source, with forward slashes. Files that desktops create are left out.
        broken_links: The paths of links to files that do not exist.

    Example:
        >>> print(describe_unrecognised(["class_dataset.zip?download=1"])[0])
        class_dataset.zip?download=1: the name of an archive with something added; rename it to class_dataset.zip
    """
    described = [
        UnrecognisedFile(
            path, "a link to a file or folder that does not exist", "mend the link", _specs_of(_file_name(path))
        )
        for path in broken_links
    ]
    parts: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    loose: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    tops: dict[str, str] = {}
    for path in paths:
        name = _file_name(path)
        if _LITTER.fullmatch(name):
            continue
        if entry := _named_like_an_archive(path, name):
            described.append(entry)
        elif part := _part_of(path, name):
            parts[part].append(path)
        elif packed := _PACKED.fullmatch(name):
            remedy = f"unpack it, and pack its content as a zip archive named {_published(packed['stem'])}"
            described.append(
                UnrecognisedFile(path, "an archive of another format", remedy, _specs_of_stem(packed["stem"]))
            )
        elif name.lower().endswith(".zip"):
            described.append(_unknown_zip(path, name))
        else:
            extension = name.rpartition(".")[2].lower() if "." in name else ""
            parent = path[: len(path) - len(name)].rstrip("/")
            if parent not in tops:
                tops[parent] = _top(parent)
            loose[tops[parent], extension].append(path)
    described += [_parts_entry(kind, stem, names) for (kind, stem), names in parts.items()]
    described += [_loose_entry(folder, extension, names) for (folder, extension), names in loose.items()]
    return tuple(sorted(described, key=lambda entry: (not entry.specs, not entry.remedy, entry.name)))


def near_misses(files: Iterable[UnrecognisedFile], specs: Sequence[ArchiveSpec]) -> list[UnrecognisedFile]:
    """Return the files that may be some archives, or a part of one."""
    return [file for file in files if set(file.specs) & set(specs)]


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]


def _specs_of_stem(stem: str) -> tuple[ArchiveSpec, ...]:
    return specs_of_file(f"{stem.strip()}.zip")


def _specs_of(name: str) -> tuple[ArchiveSpec, ...]:
    return _specs_of_stem(re.sub(r"\.zip$", "", name, flags=re.IGNORECASE))


def _published(stem: str) -> str:
    """The published name of the archive of a stem; the stem itself if it is none."""
    specs = _specs_of_stem(stem)
    return specs[0].name if specs else f"{stem}.zip, or by its published name if it belongs to this dataset"


def _named_like_an_archive(path: str, name: str) -> UnrecognisedFile | None:
    """A file with the name of an archive and something added: by a browser, a download manager or a desktop."""
    if (unfinished := _UNFINISHED.fullmatch(name)) and (specs := _specs_of_stem(unfinished["stem"])):
        return UnrecognisedFile(path, "a download that is not complete", "finish the download", specs)
    for pattern in (_QUERY, _NUMBERED, _COPY):
        if (match := pattern.fullmatch(name)) and (specs := _specs_of_stem(match["stem"])):
            problem, remedy = "the name of an archive with something added", f"rename it to {specs[0].name}"
            return UnrecognisedFile(path, problem, remedy, specs)
    return None


def _part_of(path: str, name: str) -> tuple[str, str] | None:
    """The kind of a part, and the path of the archive that it is part of, without extension."""
    for kind in ("unpacked", "zip", "cut"):
        if match := _PARTS[kind].fullmatch(name):
            stem = next(filter(None, match.groups()))
            return kind, path[: len(path) - len(name)] + stem
    return None


def _parts_entry(kind: str, stem: str, paths: Sequence[str]) -> UnrecognisedFile:
    """The parts of one archive, and how to join them."""
    names = sorted(_file_name(path) for path in paths)
    listed = ", ".join(names[:_MAX_PARTS]) + (", …" if len(names) > _MAX_PARTS else "")
    published = _published(_file_name(stem))
    if kind == "zip":
        problem = f"parts of a split zip archive ({listed}), of which {_file_name(stem)}.zip is the last"
        remedy = (
            f"put all parts into one folder, join them with `zip -s 0 {_file_name(stem)}.zip --out joined.zip`, and "
        )
        remedy += f"put the result here as {published}"
    elif kind == "cut":
        problem = f"parts of an archive that was cut ({listed})"
        first = " ".join(names[:_MAX_PARTS]) + (" …" if len(names) > _MAX_PARTS else "")
        remedy = (
            f"join all parts in their order, as with `cat {first} > joined.zip`, and put the result here as {published}"
        )
    else:
        problem = f"parts of an archive of another format ({listed})"
        remedy = f"unpack them, and pack the content as a zip archive named {published}"
    return UnrecognisedFile(min(paths), problem, remedy, _specs_of_stem(_file_name(stem)), len(paths))


def _unknown_zip(path: str, name: str) -> UnrecognisedFile:
    """A zip archive that matches no archive of the dataset; names that are close to it are given."""
    stem = name[: -len(".zip")].lower()
    series = stem.rstrip("0123456789")
    if specs := tuple(spec for number in range(10) for spec in _specs_of_stem(f"{series}{number}")):
        known = ", ".join(spec.name for spec in specs)
        number = f"number {stem[len(series) :]}" if stem != series else "an archive without a number"
        problem = f"{number} of a series of which this package knows {known}"
        return UnrecognisedFile(path, problem, "if it is one of these, give it that name; otherwise report it", specs)
    if close := difflib.get_close_matches(stem[:100], _STEMS, n=1, cutoff=0.75):
        spec = _STEMS[close[0]]
        remedy = f"if it is that archive, rename it to {spec.name}"
        return UnrecognisedFile(path, f"a name like that of {spec.name}", remedy, (spec,))
    remedy = "if it holds archives of the dataset, unpack it; if it is one of them, give it its published name"
    return UnrecognisedFile(path, "a zip archive of a name that this dataset does not have", remedy)


def _top(folder: str) -> str:
    """The first folder of a path that is named like an archive, otherwise the first one."""
    names = folder.split("/")
    end = next((at for at, name in enumerate(names) if _specs_of(name)), 0)
    return "/".join(names[: end + 1])


def _loose_entry(folder: str, extension: str, paths: Sequence[str]) -> UnrecognisedFile:
    """Files of one extension below one folder."""
    name = paths[0] if len(paths) == 1 else f"{folder}/*{'.' * bool(extension)}{extension}".lstrip("/")
    if extension not in _LOOSE:
        return UnrecognisedFile(name, "not an archive of this dataset", count=len(paths))
    specs = _specs_of(_file_name(folder))
    published = specs[0].name if specs else "the name that its archive has in the record"
    problem = "loose files, as of an archive that was unpacked"
    remedy = f"this package reads zip archives: pack them, with their folders, as {published}"
    return UnrecognisedFile(name, problem, remedy, specs, len(paths))


def archives_inside(archive: Archive) -> str | None:
    """Return what to do if members of an archive are archives themselves, ``None`` if there are none."""
    inside = [member for member in archive.members if member.suffix in _INNER]
    if not inside:
        return None
    names = ", ".join(member.name for member in inside[:_MAX_PARTS]) + (", …" if len(inside) > _MAX_PARTS else "")
    again = any(_specs_of(member.file_name) == _specs_of(archive.name) != () for member in inside)
    problem = "it holds itself once more" if again else "it holds archives"
    return f"{problem} ({names}): unpack it, and use what is inside in its place"
