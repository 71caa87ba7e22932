"""Stream pictures and volumes from a server on this machine that responds after a delay, as one that is far away.

    python -m benchmarks.streaming [--pictures 400] [--volumes 16] [--delay-ms 50]

Prints examples and megabytes per second, the number of requests and megabytes, those for the directories included. Every stream runs in a new process.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import argument_parser, run_in_new_process
from lung_nodule_ct.declaration.archives import ARCHIVES, DEFAULT_RELEASE
from lung_nodule_ct.testing.archives import (
    CT0,
    DET2D,
    NODULE_COLUMNS,
    NODULES,
    metaimage,
    noise_picture,
    split_files,
    table,
    voc_annotation,
)
from lung_nodule_ct.testing.synthetic_archives import TinyArchives

PICTURES, VOLUMES = "det2d_1.25mm", "det3d_1.25mm"


def main() -> None:
    """Serve archives, stream them, and print the results."""
    parser = argument_parser(__doc__)
    parser.add_argument("--pictures", type=int, default=400)
    parser.add_argument("--volumes", type=int, default=16)
    parser.add_argument("--delay-ms", type=float, default=50.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        source = run_in_new_process(write, Path(scratch, "source"), options.pictures, options.volumes)
        connection, server_connection = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(source, options.delay_ms / 1000, server_connection), daemon=True
        )
        server.start()
        url = connection.recv()
        print(f"{options.delay_ms:g} ms before each response; {os.cpu_count()} cores, one of them for the server")
        for config, shuffled in ((PICTURES, False), (PICTURES, True), (VOLUMES, False)):
            connection.send(None)
            connection.recv()
            count, wall, cpu = run_in_new_process(stream, url, config, shuffled, Path(scratch, f"{config}-{shuffled}"))
            connection.send(None)
            requests, sent = connection.recv()
            order = "shuffled" if shuffled else "in order"
            print(
                f"{config}, {order:9}{count / wall:8.1f} examples/s{sent / wall / 1e6:8.1f} MB/s{requests:6} requests"
                f"{sent / 1e6:8.1f} MB{cpu / count * 1e3:7.1f} CPU ms per example"
            )
        server.terminate()


def write(folder: Path, pictures: int, volumes: int) -> Path:
    """Write archives of noise: slices of 20 kB, and volumes of 8 MB."""
    archives = TinyArchives()
    stems = [f"{1 + number // 10}_20180102_{number:05}" for number in range(pictures)]
    archives[DET2D] = {
        **{f"JPEGImages/{stem}.jpg": noise_picture(number, (180, 180), "JPEG") for number, stem in enumerate(stems)},
        **{f"Annotations/{stem}.xml": voc_annotation((2, 3, 9, 11), filename=stem, size=(180, 180)) for stem in stems},
        **split_files(stems, [], "ImageSets/Main/"),
    }
    names = [f"{1 + number}_20180102" for number in range(volumes)]
    archives[CT0] = {}
    for number, name in enumerate(names):
        voxels = np.random.default_rng(number).integers(-1000, 400, (60, 256, 256))
        archives[CT0] |= metaimage(name, voxels.astype(np.int16))
    archives[NODULES] = {"annotations.csv": table(NODULE_COLUMNS, *(f"{name},-6.0,-17.0,33.0,3" for name in names))}
    return archives.write(folder, method=zipfile.ZIP_DEFLATED)


def stream(url: str, config: str, shuffled: bool, cache: Path) -> tuple[int, float, float]:
    """Stream a config, and return the number of examples, and wall and CPU seconds without the start."""
    os.environ |= {"LUNG_NODULE_CT_ZENODO_URL": url, "LUNG_NODULE_CT_CACHE": str(cache / "downloads")}
    import lung_nodule_ct

    rows = lung_nodule_ct.load(config, split="train", streaming=True, cache_dir=cache).with_format("arrow")
    if shuffled:
        rows = rows.shuffle(seed=1, buffer_size=1)
    wall, cpu = time.perf_counter(), time.process_time()
    count = sum(batch.num_rows for batch in rows.iter(1 if config == VOLUMES else 100))
    return count, time.perf_counter() - wall, time.process_time() - cpu


def serve(folder: Path, delay_s: float, parent: Connection) -> None:
    """Serve the archives of a folder as two records. Each message of the parent gets the requests and bytes since the previous one."""
    records: dict[int, dict[str, bytes]] = {DEFAULT_RELEASE.part_a: {}, DEFAULT_RELEASE.part_b: {}}
    for path in sorted(folder.rglob("*.zip")):
        (spec,) = (spec for spec in ARCHIVES if spec.matches(path.name))
        records[DEFAULT_RELEASE.record(spec.part)][spec.name] = path.read_bytes()
    totals = [0, 0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            time.sleep(delay_s)
            parts = self.path.strip("/").split("/")
            files = records[int(parts[2])]
            if len(parts) == 3:
                entries = [
                    {"key": name, "size": len(body), "checksum": "md5:" + "0" * 32} for name, body in files.items()
                ]
                self._send(200, json.dumps({"id": int(parts[2]), "metadata": {}, "files": entries}).encode(), {})
                return
            body = files[parts[4]]
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            piece = memoryview(body)[int(first) : int(last) + 1]
            totals[0] += 1
            totals[1] += len(piece)
            self._send(206, piece, {"Content-Range": f"bytes {first}-{last}/{len(body)}"})

        def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    parent.send(f"http://127.0.0.1:{server.server_address[1]}")
    while True:
        parent.recv()
        parent.send(tuple(totals))
        totals[:] = 0, 0


if __name__ == "__main__":
    main()
