"""Damage copies of a build in every format, one damage each, and count how many of them ``verify`` finds and names.

    python -m benchmarks.damages [--count 1000] [--seed 0] [--formats parquet arrow tfrecord array_record]

The build contains all configs of the embedded archives; a build of Parquet also has a card, an audit and a preview page. A damage changes
one file or a few: bits, length, name, place, content of another file or of another build, or the manifest. It counts as found if
``verify`` reports a fault of a file that was damaged. The exit status is 1 if a damage was not found.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness import argument_parser
from lung_nodule_ct.cli import main as command_line
from lung_nodule_ct.declaration.manifest import MANIFEST, Format, shard_files
from lung_nodule_ct.errors import BuildFolderError
from lung_nodule_ct.read.verification import verify

SOURCE = Path(__file__).parents[1] / "dummy_data"


@dataclass(frozen=True)
class Target:
    """A copy of a build that is to be damaged.

    Attributes:
        folder: The copy.
        other: Another build of the same format and configs, which must not be changed.
        draw: Draws files and positions.
    """

    folder: Path
    other: Path
    draw: random.Random

    def files(self) -> list[str]:
        """The names of all files, sorted."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file())

    def shards(self) -> list[str]:
        """The names of the shards, sorted."""
        return sorted(shard_files(json.loads((self.folder / MANIFEST).read_text("utf-8"))))

    def file(self) -> Path:
        """Draw any file, or as often a shard."""
        names = self.shards() if self.draw.random() < 0.5 else self.files()
        return self.folder / self.draw.choice(names)


def flip_bit(target: Target) -> list[Path]:
    """Flip one bit of a file."""
    path = target.file()
    content = bytearray(path.read_bytes())
    content[target.draw.randrange(len(content))] ^= 1 << target.draw.randrange(8)
    path.write_bytes(content)
    return [path]


def zero_block(target: Target) -> list[Path]:
    """Fill a part of a file with zeros."""
    path = target.file()
    content = path.read_bytes()
    start = target.draw.randrange(len(content))
    zeroed = content[:start] + bytes(len(content[start : start + 4096])) + content[start + 4096 :]
    path.write_bytes(zeroed)
    return [path] if zeroed != content else flip_bit(target)


def truncate(target: Target) -> list[Path]:
    """Cut the end of a file, or everything."""
    path = target.file()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(target.draw.choice([0, size - 1, target.draw.randrange(size)]))
    return [path]


def append(target: Target) -> list[Path]:
    """Append bytes to a file: a blank, zeros, or the file itself."""
    path = target.file()
    content = path.read_bytes()
    path.write_bytes(content + target.draw.choice([b" ", b"\n", bytes(512), content]))
    return [path]


def remove(target: Target) -> list[Path]:
    """Remove a file."""
    path = target.file()
    path.unlink()
    return [path]


def remove_folder(target: Target) -> list[Path]:
    """Remove the folder of a shard."""
    folder = (target.folder / target.draw.choice(target.shards())).parent
    removed = [path for path in folder.rglob("*") if path.is_file()]
    shutil.rmtree(folder)
    return removed


def add_shard(target: Target) -> list[Path]:
    """Add a file that looks like one more shard of a split."""
    path = target.folder / target.draw.choice(target.shards())
    added = path.with_name(
        path.name.replace("00000-of-00001", target.draw.choice(["00001-of-00001", "00001-of-00002"]))
    )
    content = target.folder / target.draw.choice(target.shards())
    shutil.copyfile(content, added)
    return [added]


def swap(target: Target) -> list[Path]:
    """Exchange two files with different content."""
    names = target.shards() if target.draw.random() < 0.5 else target.files()
    one, two = (target.folder / name for name in target.draw.sample(names, 2))
    if one.read_bytes() == two.read_bytes():
        return swap(target)
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)
    return [one, two]


def rename(target: Target) -> list[Path]:
    """Rename a file in its folder."""
    path = target.file()
    renamed = path.with_name(target.draw.choice([f"{path.name}.bak", path.name.upper(), f"copy-{path.name}"]))
    path.rename(renamed)
    return [path] if path != renamed else flip_bit(target)


def move(target: Target) -> list[Path]:
    """Move a file to the folder of another one."""
    path = target.file()
    moved = (target.folder / target.draw.choice(target.files())).parent / path.name
    if moved.exists():
        return rename(target)
    path.rename(moved)
    return [path]


def replace_by_other_build(target: Target) -> list[Path]:
    """Replace a file by the file of the same name of another build."""
    different = [
        name
        for name in target.files()
        if (target.other / name).is_file() and (target.other / name).read_bytes() != (target.folder / name).read_bytes()
    ]
    shards = sorted(set(different) & set(target.shards()))
    name = target.draw.choice(shards if shards and target.draw.random() < 0.7 else different)
    shutil.copyfile(target.other / name, target.folder / name)
    # with the manifest of the other build, every file that differs from it is at fault, and not the manifest
    return [target.folder / name] if name != MANIFEST else [target.folder / each for each in target.files()]


def copy_onto(target: Target) -> list[Path]:
    """Overwrite a file with another one of the same build."""
    one, two = (target.folder / name for name in target.draw.sample(target.files(), 2))
    if one.read_bytes() == two.read_bytes():
        return copy_onto(target)
    shutil.copyfile(one, two)
    return [two]


def edit_manifest(target: Target) -> list[Path]:
    """Change the manifest as a person or a program would, without its own hash."""
    path = target.folder / MANIFEST
    text = path.read_text("utf-8")
    manifest = json.loads(text)
    config = target.draw.choice(sorted(manifest["configs"].values(), key=json.dumps))
    entry = target.draw.choice(config["files"])
    match target.draw.randrange(7):
        case 0:
            entry["bytes"] += target.draw.choice([-1, 1])
        case 1:
            entry["rows"] += 1
        case 2:
            config["files"].remove(entry)
        case 3:
            del manifest["files"][target.draw.choice(sorted(manifest["files"]))]
        case 4:
            manifest["records"] = [{"number": 1, "doi": None, "licence": "cc-by-4.0"}]
        case 5:
            del manifest[target.draw.choice(["sha256", "files"])]
        case _:
            manifest["format_version"] = 2
    indent = target.draw.choice([2, 2, 2, None])
    path.write_text(json.dumps(manifest, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    return [path]


def damage_with_manifest(target: Target) -> list[Path]:
    """Flip a bit of a shard, and write its new hash into the manifest."""
    name = target.draw.choice(target.shards())
    path = target.folder / name
    before = verify(target.folder)
    content = bytearray(path.read_bytes())
    content[target.draw.randrange(len(content))] ^= 1
    path.write_bytes(content)
    (fault,) = verify(target.folder).faults
    old, new = (text.rpartition(" ")[2] for text in (fault.expected, fault.got))
    manifest = target.folder / MANIFEST
    manifest.write_text(manifest.read_text("utf-8").replace(old, new), encoding="utf-8")
    assert before.is_sound
    return [path, manifest]


DAMAGES: tuple[Callable[[Target], list[Path]], ...] = (
    flip_bit,
    flip_bit,
    flip_bit,
    zero_block,
    truncate,
    append,
    remove,
    remove_folder,
    add_shard,
    swap,
    rename,
    move,
    replace_by_other_build,
    copy_onto,
    edit_manifest,
    damage_with_manifest,
)


def build(format_: Format, folder: Path, *options: str) -> Path:
    """Build all configs in a format, with everything that commands add to Parquet."""
    run("build", "--all", "--source", SOURCE, "--format", format_, "--out", folder, *options)
    for command in ("card", "audit", "preview") if format_ is Format.PARQUET else ():
        run(command, folder)
    return folder


def run(*arguments: str | Path) -> None:
    """Run a command in this process, which has imported what it needs."""
    sys.argv = ["lung-nodule-ct", *map(str, arguments)]
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            command_line()
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(f"{' '.join(sys.argv)} failed:\n{output.getvalue()}") from stop


def names_of_faults(folder: Path) -> set[str]:
    """The names of the files that ``verify`` reports."""
    try:
        return {fault.path for fault in verify(folder).faults}
    except BuildFolderError as error:
        return {MANIFEST} if MANIFEST in str(error) else set()


def damaged_copies(sound: Path, other: Path, scratch: Path, count: int, seed: int) -> Iterator[tuple[str, bool]]:
    """Damage one copy after the other, and yield the kind of each damage and whether it was found and named."""
    for number in range(count):
        damage = DAMAGES[number % len(DAMAGES)]
        copy = scratch / "copy"
        shutil.copytree(sound, copy)
        damaged = damage(Target(copy, other, random.Random(f"{seed} {number}")))
        names = {path.relative_to(copy).as_posix() for path in damaged}
        found = bool(names & names_of_faults(copy))
        if not found:
            print(f"not found: {damage.__name__}, number {number}: {', '.join(sorted(names))}", file=sys.stderr)
        yield damage.__name__, found
        shutil.rmtree(copy)


def main() -> None:
    """Damage builds of every format, and print how many damages were found."""
    parser = argument_parser(__doc__)
    parser.add_argument("--count", type=int, default=1000, help="number of damages, over all formats")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", nargs="+", type=Format, default=list(Format))
    options = parser.parse_args()
    tried: Counter[tuple[str, Format]] = Counter()
    found: Counter[tuple[str, Format]] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, format_ in enumerate(options.formats):
            sound = build(format_, root / f"{format_}")
            other = build(format_, root / f"{format_} by patient", "--split-by", "patient")
            assert verify(sound).is_sound
            assert verify(other).is_sound
            share = len(range(number, options.count, len(options.formats)))
            for kind, caught in damaged_copies(sound, other, root, share, options.seed):
                tried[kind, format_] += 1
                found[kind, format_] += caught
    print(f"{'found of tried':24}" + "".join(f"{format_:>14}" for format_ in options.formats))
    for kind in dict.fromkeys(damage.__name__ for damage in DAMAGES):
        cells = (f"{found[kind, format_]:,} of {tried[kind, format_]:,}" for format_ in options.formats)
        print(f"{kind:24}" + "".join(map("{:>14}".format, cells)))
    print(f"{sum(found.values()):,} of {sum(tried.values()):,} damages found and named")
    if found != tried:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
