"""Compare a download of this package, which verifies the MD5 digest, with curl, from a server on this machine.

    python -m benchmarks.download [--gigabytes 1] [--rounds 5]

Prints wall and CPU seconds and peak memory of each program. The server is one process that sends a file with
``sendfile``, so that it is not the bottleneck. Two more programs help to interpret the result: one only imports this
package, and one only computes the MD5 digest of the file, which no verified download can beat.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.harness import argument_parser, measure_in_turn, medians, run_in_new_process

ARCHIVE = "class_dataset.zip"
RECORD = 12582356
"""The Zenodo record that contains the archive."""

_MD5 = "import hashlib, sys; print(hashlib.file_digest(open(sys.argv[1], 'rb'), 'md5').hexdigest())"
_IMPORT = "import lung_nodule_ct.sources.zenodo"
_DOWNLOAD = """
import sys
from lung_nodule_ct.sources.zenodo import Zenodo
from lung_nodule_ct.declaration.archives import ARCHIVES
Zenodo(sys.argv[1], cache=sys.argv[2]).download([spec for spec in ARCHIVES if spec.name == sys.argv[3]])
"""


def main() -> None:
    """Serve a random file, download it in turn, and print the results."""
    parser = argument_parser(__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        path, md5 = run_in_new_process(write_random_file, root / "served.bin", int(options.gigabytes * 1e9))
        connection, server_connection = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(
            target=serve, args=(path, md5, server_connection), daemon=True
        )
        server.start()
        url = connection.recv()
        content = f"{url}/api/records/{RECORD}/files/{ARCHIVE}/content"
        cache, copy = root / "cache", root / "copy.bin"
        python = [sys.executable, "-c"]
        clear = f"rm -rf {cache} {copy};"
        commands = {
            "curl": ["sh", "-c", f"{clear} exec curl -sS -o {copy} {content}"],
            "ours": ["sh", "-c", f'{clear} exec "$@"', "sh", *python, _DOWNLOAD, url, str(cache), ARCHIVE],
            "ours, only the import": [*python, _IMPORT],
            "MD5 of the file": [*python, _MD5, str(path)],
        }
        runs = measure_in_turn(commands, options.rounds)
        server.terminate()
    results = {name: medians(measured) for name, measured in runs.items()}
    print(f"{options.gigabytes:g} GB, median of {options.rounds}; {os.cpu_count()} cores, one of them for the server")
    for name, result in results.items():
        print(f"{name:<24} wall {result.wall:6.2f} s   CPU {result.cpu:6.2f} s   peak {result.peak_mb:7.1f} MB")
    ours, imported = results["ours"], results["ours, only the import"]
    ratio = results["curl"].wall / (ours.wall - imported.wall)
    print(f"throughput without the import, ratio to curl: {ratio:.2f}")
    print(f"peak memory above that of the import: {ours.peak_mb - imported.peak_mb:.1f} MB")


def write_random_file(path: Path, size: int) -> tuple[Path, str]:
    """Write a file of random bytes, and return its path and MD5 digest."""
    block, digest = os.urandom(1 << 24), hashlib.md5(usedforsecurity=False)
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            part = block[: size - start]
            file.write(part)
            digest.update(part)
    return path, digest.hexdigest()


def serve(path: Path, md5: str, parent: Connection) -> None:
    """Serve a Zenodo record with one file until the process is terminated, and send the URL to the parent process."""
    size = path.stat().st_size
    files = [{"key": ARCHIVE, "size": size, "checksum": f"md5:{md5}"}]
    record = json.dumps({"metadata": {}, "files": files}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            is_content = self.path.endswith("/content")
            self.send_response(200)
            self.send_header("Content-Length", str(size if is_content else len(record)))
            self.end_headers()
            if not is_content:
                self.wfile.write(record)
                return
            with path.open("rb") as file:
                offset = 0
                while offset < size:
                    offset += os.sendfile(self.connection.fileno(), file.fileno(), offset, 1 << 24)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    parent.send(f"http://127.0.0.1:{server.server_address[1]}")
    server.serve_forever()


if __name__ == "__main__":
    main()
