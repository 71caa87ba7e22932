"""Compare with what a good engineer writes today, and with what many write: builds, pictures, patches from memory, and loaders.

    python -m benchmarks.peers [--volumes 16] [--pictures 1500] [--rounds 5] [--reads 200] [--only build pictures patches loaders]

The programs run in turn, once per round. The table shows medians of wall, user and system seconds, and the peak memory of all processes of
a program together. The ratios are medians of the ratios of a round, other / ours: above 1, ours is faster. Strong programs (see
``benchmarks.peer_programs``) check nothing; ours does what it always does. MONAI, TorchIO, webdataset and zarr are measured if they are
installed.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.archives import write_source
from benchmarks.harness import (
    PROGRAM,
    Command,
    argument_parser,
    build_command,
    measure_in_turn,
    medians,
    module_command,
    paired_ratio,
    run_in_new_process,
)

Read = Callable[[int, tuple[int, int, int], int], Any]
"""Reads the cube of a volume that begins at a voxel (z, y, x) and has a size."""
Loader = Callable[[int], Iterable[Any]]
"""Loads all patches, in batches, with a number of workers."""
OURS = "ours"


def main() -> None:
    """Run the comparisons and print their tables."""
    parser = argument_parser(__doc__)
    parser.add_argument("--volumes", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reads", type=int, default=200)
    parser.add_argument("--only", nargs="+", default=["build", "pictures", "patches", "loaders"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        if "build" in options.only:
            compare_builds(root, options.volumes, options.rounds)
        if "pictures" in options.only:
            compare_pictures(root, options.pictures, options.rounds)
        if {"patches", "loaders"} & {*options.only}:
            print(run_in_new_process(compare_reads, root, options.reads, options.only))


def compare_builds(root: Path, volumes: int, rounds: int) -> None:
    """Builds of scans with masks to Arrow and to Parquet."""
    source = run_in_new_process(write_source, root / "source", volumes)
    out = root / "out"
    ours = build_command(source, "--out", out)
    peer = {name: module_command("peer_programs", name, source, out) for name in ("isal-arrow", "isal-parquet")}
    arrow: dict[str, Command] = {
        OURS: [*ours, "--format", "arrow"],
        "pyarrow stream with ISA-L": peer["isal-arrow"],
        "from_generator, large_binary": module_command("peer_programs", "generator-arrow", source, out),
        "from_generator, Array3D, SimpleITK": module_command("naive", source, out, "arrow"),
    }
    parquet: dict[str, Command] = {OURS: ours, "pyarrow with ISA-L, zstd 1": peer["isal-parquet"]}
    print_programs(f"{volumes} volumes of 512 x 512 x 160 with masks, to Arrow", arrow, rounds, out)
    print_programs(f"{volumes} volumes of 512 x 512 x 160 with masks, to Parquet", parquet, rounds, out)
    shutil.rmtree(source)


def compare_pictures(root: Path, count: int, rounds: int) -> None:
    """Builds of slices with boxes to Parquet."""
    source = run_in_new_process(write_pictures, root / "pictures", count)
    out = root / "out"
    commands: dict[str, Command] = {
        OURS: [PROGRAM, "build", "det2d_1.25mm", "--source", source, "--out", out],
        "from_generator, to_parquet": module_command("peer_programs", "generator-pictures", source, out),
    }
    print_programs(f"{count:,} slices of 512 x 512 (JPEG), to Parquet", commands, rounds, out)


def print_programs(title: str, commands: Mapping[str, Command], rounds: int, out: Path) -> None:
    """Measure programs in turn and print their table."""
    runs = measure_in_turn(commands, rounds, dict.fromkeys(commands, out))
    shutil.rmtree(out, ignore_errors=True)
    print(f"{title:54}{'wall s':>8}{'user s':>8}{'system s':>9}{'peak MB':>9}{'CPU x':>7}{'wall x':>8}")
    for name, measured in runs.items():
        result = medians(measured)
        cpu = paired_ratio([run.cpu for run in measured], [run.cpu for run in runs[OURS]])
        wall = paired_ratio([run.wall for run in measured], [run.wall for run in runs[OURS]])
        print(
            f"  {name:52}{result.wall:8.2f}{result.user:8.2f}{result.system:9.2f}{result.peak_mb:9.0f}{cpu:7.2f}{wall:8.2f}"
        )
    print()


def write_pictures(folder: Path, count: int) -> Path:
    """Write an archive of different slices as JPEG of about 35 kB, 100 slices for each patient."""
    from lung_nodule_ct.geometry.display import LUNG
    from lung_nodule_ct.testing.archives import DET2D, encode_picture, split_files, voc_annotation, write_archives
    from lung_nodule_ct.testing.phantoms import PhantomNodule, make_chest

    chest = make_chest((64, 512, 512), (0.7, 0.7, 1.25), (PhantomNodule((70.0, 20.0, 0.0), 14.0),), noise=20)
    rng = np.random.default_rng(3)
    grey = LUNG.to_grey(chest.volume)
    members: dict[str, bytes] = {}
    stems: list[str] = []
    for number in range(count):
        stem = f"{1 + number // 100}_20200101_{number % 100:03}"
        picture = np.roll(grey[number % 64], int(rng.integers(512)), axis=1)
        members[f"JPEGImages/{stem}.jpg"] = encode_picture(np.stack([picture] * 3, axis=-1), "JPEG")
        members[f"Annotations/{stem}.xml"] = voc_annotation(
            (300, 250, 340, 290), filename=f"{stem}.jpg", size=(512, 512)
        )
        stems.append(stem)
    members |= split_files(stems[: count // 5 * 4], stems[count // 5 * 4 :], "ImageSets/Main/")
    return write_archives(folder, {DET2D: members})


def compare_reads(root: Path, reads: int, only: list[str]) -> str:
    """Patches of volumes that are in memory, and loaders of patches."""
    import lung_nodule_ct
    from lung_nodule_ct.declaration.configs import get_config
    from lung_nodule_ct.sources.resolve import open_folder
    from lung_nodule_ct.targets.build import build_folder
    from lung_nodule_ct.targets.options import BuildOptions

    source = write_source(root / "two", 2)
    config = [get_config("det3d_1.25mm")]
    build_folder(config, open_folder(source), root / "arrow", BuildOptions(format="arrow"))  # type: ignore[arg-type]
    import datasets

    volumes = lung_nodule_ct.volumes(datasets.load_from_disk(str(root / "arrow"))["train"])
    for index, volume in enumerate(volumes):
        np.save(root / f"{index}.npy", volume.numpy())
    text = [patch_table(root, volumes, reads)] if "patches" in only else []
    if "loaders" in only and find_spec("torch"):
        text.append(loader_table(root, volumes, reads))
    return "\n".join(text)


def patch_table(root: Path, volumes: Any, reads: int) -> str:
    """The peers, each in turn with ours, so that no reader finds what another has just read in the caches of the CPU."""
    lines = []
    shape = volumes[0].shape

    def ours(index: int, start: tuple[int, int, int], size: int) -> Any:
        center = tuple(first + size / 2 - 1 for first in start[::-1])
        return volumes[index].patch(center_voxel=center, size=(size, size, size))

    peers = dict(patch_readers(root, volumes))
    for size in (96, 128):
        lines.append(f"{f'warm patches of {size} cubed':44}{'CPU ms':>8}{'ours ms':>9}{'x':>7}")
        for name, read in peers.items():
            times: tuple[list[float], list[float]] = ([], [])
            rng = np.random.default_rng(0)
            for number in range(reads):
                index = int(rng.integers(len(volumes)))
                start = tuple(int(rng.integers(limit - size)) for limit in shape)
                pair = ((read, times[0]), (ours, times[1]))
                for function, into in pair if number % 2 else pair[::-1]:
                    before = time.process_time_ns()
                    function(index, start, size)  # type: ignore[arg-type]
                    into.append((time.process_time_ns() - before) / 1e6)
            ratio = paired_ratio(*times)
            lines.append(f"  {name:42}{median(times[0]):8.3f}{median(times[1]):9.3f}{ratio:7.2f}")
    return "\n".join(lines) + "\n"


def patch_readers(root: Path, volumes: Any) -> Iterator[tuple[str, Read]]:
    """Readers of the same volumes from their own files or from memory."""

    def cube(start: tuple[int, int, int], size: int) -> tuple[slice, ...]:
        return tuple(slice(first, first + size) for first in start)

    arrays = [volume.numpy() for volume in volumes]
    yield "NumPy, a copy from RAM", lambda i, start, size: arrays[i][cube(start, size)].copy()
    mapped = [np.load(root / f"{index}.npy", mmap_mode="r") for index in range(len(arrays))]
    yield "np.load(mmap_mode='r')", lambda i, start, size: mapped[i][cube(start, size)].copy()
    if find_spec("blosc2"):
        import blosc2

        blosc2.set_nthreads(1)
        for index, array in enumerate(arrays):
            params = {"codec": blosc2.Codec.ZSTD, "clevel": 8, "nthreads": 1}
            layout = {"chunks": (96, 160, 160), "blocks": (16, 32, 32)}
            blosc2.asarray(array, urlpath=str(root / f"{index}.b2nd"), mode="w", cparams=params, **layout)
        frames = [blosc2.open(str(root / f"{i}.b2nd"), mode="r", mmap_mode="r") for i in range(len(arrays))]
        yield "b2nd as nnU-Net stores it", lambda i, start, size: frames[i][cube(start, size)]
    if find_spec("zarr"):
        import zarr

        stores = [
            zarr.create_array(str(root / f"{i}.zarr"), data=array, chunks=(32, 128, 128))
            for i, array in enumerate(arrays)
        ]
        yield "zarr v3, chunks of 32 x 128 x 128", lambda i, start, size: stores[i][cube(start, size)]
    if find_spec("monai"):
        import torch
        from monai.transforms import SpatialCrop

        torch.set_num_threads(1)
        tensors = [torch.from_numpy(array)[None] for array in arrays]
        yield (
            "MONAI, SpatialCrop from RAM",
            lambda i, start, size: SpatialCrop(roi_start=start, roi_end=[first + size for first in start])(
                tensors[i]
            ).contiguous(),
        )
    if find_spec("torchio"):
        import torch
        import torchio

        subjects = [torchio.Subject(ct=torchio.ScalarImage(tensor=torch.from_numpy(array)[None])) for array in arrays]
        yield (
            "TorchIO, crop of a subject in RAM",
            lambda i, start, size: torchio.UniformSampler((size,) * 3).extract_patch(subjects[i], start),
        )


def loader_table(root: Path, volumes: Any, reads: int) -> str:
    """Random patches of 96 cubed through PyTorch's ``DataLoader``, with 0 and 2 workers."""
    lines = [f"{'loaders, patches of 96 cubed, batches of 2':44}{'workers':>8}{'patches/s':>11}{'ours x':>8}"]
    loaders: dict[str, Loader] = {OURS: data_loader(Patches(volumes, reads))}
    arrays = [root / f"{index}.npy" for index in range(len(volumes))]
    loaders["np.load(mmap_mode='r')"] = data_loader(MappedPatches(arrays, reads))
    if find_spec("monai"):
        loaders["MONAI, RandSpatialCrop from RAM"] = data_loader(monai_patches(volumes, reads))
    if find_spec("torchio"):
        loaders["TorchIO, Queue of subjects in RAM"] = torchio_queue(volumes, reads)
    if find_spec("webdataset"):
        loaders["webdataset, patches cut before, in tar"] = webdataset_patches(root, volumes, reads)
    for workers in (0, 2):
        rates: dict[str, float] = {}
        for name, loader in loaders.items():
            start = time.perf_counter()
            count = sum(len(batch) for batch in loader(workers))
            rates[name] = count / (time.perf_counter() - start)
        lines += [f"  {name:42}{workers:8}{rate:11.0f}{rates[OURS] / rate:8.2f}" for name, rate in rates.items()]
    return "\n".join(lines) + "\n"


def data_loader(dataset: Any) -> Loader:
    """Batches of two of a dataset."""
    from torch.utils.data import DataLoader

    return lambda workers: DataLoader(dataset, batch_size=2, num_workers=workers)


class Patches:
    """Random patches of our volumes."""

    def __init__(self, volumes: Any, count: int) -> None:
        self._volumes, self._count = volumes, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        rng = np.random.default_rng(index)
        volume = self._volumes[index % len(self._volumes)]
        center = [48 + int(rng.integers(limit - 96)) for limit in volume.shape[::-1]]
        return volume.patch(center_voxel=center, size=(96, 96, 96))


class MappedPatches:
    """The same patches of files of NumPy, each of which is opened once per process."""

    def __init__(self, paths: list[Path], count: int) -> None:
        self._paths, self._count = paths, count
        self._arrays: dict[int, Any] = {}

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        rng = np.random.default_rng(index)
        number = index % len(self._paths)
        if number not in self._arrays:
            self._arrays[number] = np.load(self._paths[number], mmap_mode="r")
        array = self._arrays[number]
        x, y, z = (int(rng.integers(limit - 96)) for limit in array.shape[::-1])
        return array[z : z + 96, y : y + 96, x : x + 96].copy()


def monai_patches(volumes: Any, count: int) -> Any:
    """MONAI's random crops of volumes that are kept in memory."""
    import torch
    from monai.data import Dataset
    from monai.transforms import RandSpatialCrop

    tensors = [torch.from_numpy(volume.numpy())[None] for volume in volumes]
    crop = RandSpatialCrop((96, 96, 96), random_size=False)
    return Dataset([tensors[index % len(tensors)] for index in range(count)], crop)


def torchio_queue(volumes: Any, count: int) -> Loader:
    """TorchIO's queue, whose workers load subjects; it cuts the patches itself."""
    import torch
    import torchio

    tensors = [torch.from_numpy(volume.numpy())[None] for volume in volumes]
    dataset = torchio.SubjectsDataset([torchio.Subject(ct=torchio.ScalarImage(tensor=tensor)) for tensor in tensors])
    each = count // len(tensors)
    sampler = torchio.UniformSampler(96)

    def batches(workers: int) -> Iterator[Any]:
        queue = torchio.Queue(dataset, each * len(tensors), each, sampler, num_workers=workers)
        for batch in torchio.SubjectsLoader(queue, batch_size=2, num_workers=0):
            yield batch["ct"][torchio.DATA]

    return batches


def webdataset_patches(root: Path, volumes: Any, count: int) -> Loader:
    """Patches that were cut before, in two tar files that are read from beginning to end: other patches need other files."""
    import webdataset
    from torch.utils.data import DataLoader

    patches = Patches(volumes, count)
    urls = [str(root / f"{shard}.tar") for shard in range(2)]
    for shard, url in enumerate(urls):
        with webdataset.TarWriter(url) as writer:
            for index in range(shard, count, 2):
                writer.write({"__key__": f"{index:06}", "npy": np.asarray(patches[index])})

    def batches(workers: int) -> Any:
        dataset = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode().to_tuple("npy")
        return (batch for (batch,) in DataLoader(dataset, batch_size=2, num_workers=workers))

    return batches


if __name__ == "__main__":
    main()
