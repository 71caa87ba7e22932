"""What verification reports: faults of the files of a build, each with what was expected, what was found, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lung_nodule_ct.declaration.manifest import MANIFEST
from lung_nodule_ct.errors import BuildFolderError

if TYPE_CHECKING:
    from pathlib import Path

    from lung_nodule_ct.declaration.manifest import FileRecord


class FaultKind(StrEnum):
    """What is wrong with a file of a build."""

    MANIFEST = "manifest"
    MISSING = "missing"
    CHANGED = "changed"
    RENAMED = "renamed"
    SWAPPED = "swapped"
    ADDED = "added"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Fault:
    """A difference between a build and its manifest.

    Attributes:
        kind: What is wrong.
        path: The file, relative to the build.
        expected: What the manifest records.
        got: What is there.
        remedy: What to do about it.
    """

    kind: FaultKind
    path: str
    expected: str
    got: str
    remedy: str

    def __str__(self) -> str:
        return str(self.error())

    def error(self) -> BuildFolderError:
        """The fault as an error."""
        return BuildFolderError(f"{self.kind}: {self.path}", expected=self.expected, got=self.got, remedy=self.remedy)

    def to_dict(self) -> dict[str, str]:
        """The fault as JSON values."""
        return {
            "kind": str(self.kind),
            "path": self.path,
            "expected": self.expected,
            "got": self.got,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Verification:
    """The result of :func:`verify`.

    Attributes:
        folder: The build, or its URL.
        files: Number of files whose size and SHA-256 are those of the manifest, the manifest included if it has its own hash.
        num_bytes: Their size.
        faults: What differs.
        foreign: Files that do not belong to the build and that no reader loads.
        unproven: What the manifest of an earlier version cannot prove, one sentence each.
        manifest_sha256: The SHA-256 of ``build.json``. Two builds with the same value are equal, and a value that was published or noted
            proves that the manifest itself was not replaced.
    """

    folder: Path | str
    files: int
    num_bytes: int
    faults: tuple[Fault, ...]
    foreign: tuple[str, ...]
    unproven: tuple[str, ...]
    manifest_sha256: str

    @property
    def is_sound(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def raise_faults(self) -> None:
        """Raise the first fault, if there is one.

        Raises:
            BuildFolderError: There is a fault.
        """
        if self.faults:
            more = f" (and {len(self.faults) - 1:,} more)" if len(self.faults) > 1 else ""
            first = self.faults[0]
            raise BuildFolderError(
                f"{self.folder} is not as it was built: {first.kind}: {first.path}{more}",
                expected=first.expected,
                got=first.got,
                remedy=first.remedy,
            )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "folder": str(self.folder),
            "sound": self.is_sound,
            "files": self.files,
            "bytes": self.num_bytes,
            "faults": [fault.to_dict() for fault in self.faults],
            "not_of_this_build": list(self.foreign),
            "unproven": list(self.unproven),
            "manifest_sha256": self.manifest_sha256,
        }


def record_text(record: FileRecord) -> str:
    """A record for a message."""
    return f"{record.size:,} bytes" + (f", sha256 {record.sha256}" if record.sha256 else "")


def how_to_restore(name: str) -> str:
    """What to do about a file that cannot be written again by a command."""
    return f"restore {name} from a copy of this build, or build again into another folder with: lung-nodule-ct build"


def without_manifest(folder: Path | str, error: Exception, sha256: str) -> Verification:
    """The result for a build whose manifest is not one.

    Args:
        folder: The build, or its URL.
        error: Why it is not a manifest.
        sha256: Of its text.
    """
    fault = Fault(FaultKind.MANIFEST, MANIFEST, "a manifest", repr(error)[:200], how_to_restore(MANIFEST))
    return Verification(folder, 0, 0, (fault,), (), (), sha256)


def edited_manifest() -> Fault:
    """The fault of a manifest whose text does not have the hash that it states."""
    return Fault(
        FaultKind.MANIFEST,
        MANIFEST,
        "the text that was written, which contains its own hash",
        "another text: the manifest was edited or damaged, so it proves nothing",
        how_to_restore(MANIFEST),
    )


def added_file(name: str) -> Fault:
    """The fault of a file that readers load or interpret, and that the manifest does not record."""
    return Fault(
        FaultKind.ADDED,
        name,
        "only files that the manifest records where readers look for shards and their description",
        "a file that this build did not write",
        "move it to another folder",
    )
