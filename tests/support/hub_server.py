"""A Hub on this machine: what ``create_repo``, ``dataset_info`` and ``upload_folder`` of huggingface_hub ask of the real one.

Endpoints as https://huggingface.co/docs/hub/api and the Git LFS batch API have them; files of Parquet and PNG go by LFS.
"""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """What it holds, and what it was asked.

    Attributes:
        url: Where it is.
        token: The one that it lets in.
        repos: Files by name, by repository.
        private: Whether a repository is.
        fail_at: The end of a path that it answers with an error.
        requests: Method, path and authorization of every request.
    """

    url: str = ""
    token: str = "hf_" + "t0psecret" * 3
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    fail_at: str = "nowhere"
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    objects: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def running_hub():
    """A Hub for the time of a block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, document: object = None, status: int = 200) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _take(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _begin(self) -> list[str] | None:
            """The parts of the path, unless the request is refused."""
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path, self.headers.get("Authorization")))
            if path.endswith(hub.fail_at):
                self._take()
                self._answer({"error": "out of order"}, 500 if self.command != "POST" else 403)
                return None
            if not path.startswith("/objects/") and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._take()
                self._answer({"error": "Invalid credentials"}, 401)
                return None
            return path.strip("/").split("/")

        def do_GET(self) -> None:
            match self._begin():
                case ["api", "datasets", user, name, "tree", *_]:
                    files = hub.repos[f"{user}/{name}"]
                    self._answer(
                        [{"type": "file", "path": path, "size": len(files[path]), "oid": "0"} for path in files]
                    )
                case ["api", "datasets", user, name, *_]:
                    repo = f"{user}/{name}"
                    siblings = [{"rfilename": path} for path in hub.repos[repo]]
                    self._answer({"id": repo, "private": hub.private[repo], "siblings": siblings, "sha": "0" * 40})
                case None:
                    pass
                case _:
                    self._answer({"error": "not found"}, 404)

        def do_PUT(self) -> None:
            match self._begin():
                case ["objects", oid]:
                    content = self._take()
                    assert hashlib.sha256(content).hexdigest() == oid
                    hub.objects[oid] = content
                    self._answer()

        def do_POST(self) -> None:
            parts = self._begin()
            if parts is None:
                return
            body = self._take()
            match parts:
                case ["api", "repos", "create"]:
                    asked = json.loads(body)
                    repo = f"{asked['organization']}/{asked['name']}"
                    assert asked["type"] == "dataset"
                    if repo in hub.repos:
                        known = f"{hub.url}/datasets/{repo}"
                        self._answer({"error": "You already created this dataset repo", "url": known}, 409)
                        return
                    hub.repos[repo], hub.private[repo] = {}, asked.get("visibility") == "private"
                    self._answer({"url": f"{hub.url}/datasets/{repo}", "name": repo, "id": repo})
                case ["api", "validate-yaml"]:
                    self._answer({"errors": [], "warnings": []})
                case ["api", "datasets", _, _, "preupload", "main"]:
                    files = [
                        {
                            "path": entry["path"],
                            "uploadMode": "lfs" if entry["path"].endswith((".parquet", ".png")) else "regular",
                            "shouldIgnore": False,
                        }
                        for entry in json.loads(body)["files"]
                    ]
                    self._answer({"files": files})
                case ["datasets", _, _, "info", "lfs", "objects", "batch"]:
                    objects = [
                        {**entry, "actions": {"upload": {"href": f"{hub.url}/objects/{entry['oid']}"}}}
                        for entry in json.loads(body)["objects"]
                    ]
                    self._answer({"transfer": "basic", "objects": objects})
                case ["api", "datasets", user, name, "commit", "main"]:
                    files = dict(hub.repos[f"{user}/{name}"])
                    for line in body.splitlines():
                        _apply(json.loads(line), files, hub.objects)
                    hub.repos[f"{user}/{name}"] = files
                    self._answer(
                        {
                            "success": True,
                            "commitOid": "1" * 40,
                            "commitUrl": f"{hub.url}/datasets/{user}/{name}/commit/{'1' * 40}",
                        }
                    )
                case _:
                    self._answer({"error": "not found"}, 404)

    return Handler


def _apply(line: dict, files: dict[str, bytes], objects: dict[str, bytes]) -> None:
    value = line["value"]
    match line["key"]:
        case "file":
            assert value["encoding"] == "base64"
            files[value["path"]] = base64.b64decode(value["content"])
        case "lfsFile":
            files[value["path"]] = objects[value["oid"]]
        case "deletedFile":
            del files[value["path"]]
