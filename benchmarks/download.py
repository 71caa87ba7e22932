"""A download from a server on this machine, ours against curl: wall, CPU, memory; ours proves the md5 while it comes.

    python -m benchmarks.download [--gigabytes 1] [--rounds 5]

The server is one process that sends a file with sendfile, so that it is not what is measured; all take turns in one run. The
hashing alone is timed beside them: no download that is proven can be faster.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.harness import in_turn, medians

NAME = "class_dataset.zip"
NUMBER = 12582356
_HASH = "import hashlib, sys; print(hashlib.file_digest(open(sys.argv[1], 'rb'), 'md5').hexdigest())"
_BARE = "import lung_nodule_ct.sources.zenodo"
_OURS = """
import pathlib, shutil, sys
from lung_nodule_ct.sources.zenodo import Zenodo
from lung_nodule_ct.declaration.archives import ARCHIVES
Zenodo(sys.argv[1], cache=sys.argv[2]).download([spec for spec in ARCHIVES if spec.name == sys.argv[3]])
"""


def main() -> None:
    """Make a file, serve it, fetch it in turn, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        path, md5 = write_file(root / "served.bin", int(options.gigabytes * 1e9))
        mine, theirs = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(path, md5, theirs), daemon=True)
        server.start()
        url = mine.recv()
        content = f"{url}/api/records/{NUMBER}/files/{NAME}/content"
        cache, copy = root / "cache", root / "copy.bin"
        python = [sys.executable, "-c"]
        wipe = f"rm -rf {cache} {copy};"
        contenders = {
            "curl": ["sh", "-c", f"{wipe} exec curl -sS -o {copy} {content}"],
            "ours": ["sh", "-c", f'{wipe} exec "$@"', "sh", *python, _OURS, url, str(cache), NAME],
            "ours, only imported": [*python, _BARE],
            "md5 of the file, alone": [*python, _HASH, str(path)],
        }
        runs = in_turn(contenders, options.rounds)
        server.terminate()
    figures = {name: medians(own) for name, own in runs.items()}
    start = figures["ours, only imported"]
    print(f"{options.gigabytes:g} GB, median of {options.rounds}; {os.cpu_count()} cores, the server on one of them")
    for name, own in figures.items():
        print(f"{name:<24} wall {own.wall:6.2f} s   CPU {own.cpu:6.2f} s   peak {own.peak_mb:7.1f} MB")
    rate = figures["curl"].wall / (figures["ours"].wall - start.wall)
    print(f"throughput of ours, start-up taken off: {rate:.2f} of curl's")
    print(f"memory above the imported interpreter: {figures['ours'].peak_mb - start.peak_mb:.1f} MB")


def write_file(path: Path, size: int) -> tuple[Path, str]:
    """A file of noise, block by block, and its md5."""
    block, digest = os.urandom(1 << 24), hashlib.md5(usedforsecurity=False)
    with path.open("wb") as file:
        for start in range(0, size, len(block)):
            piece = block[: size - start]
            file.write(piece)
            digest.update(piece)
    return path, digest.hexdigest()


def serve(path: Path, md5: str, parent: Connection) -> None:
    """One record with one file, until the parent ends this."""
    size = path.stat().st_size
    files = [{"key": NAME, "size": size, "checksum": f"md5:{md5}"}]
    record = json.dumps({"metadata": {}, "files": files}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            whole = self.path.endswith("/content")
            self.send_response(200)
            self.send_header("Content-Length", str(size if whole else len(record)))
            self.end_headers()
            if not whole:
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
