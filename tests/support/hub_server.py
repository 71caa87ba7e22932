"""A small Hub on the loopback interface, with the endpoints that huggingface_hub uses to create and fill a dataset repository.

The endpoints follow https://huggingface.co/docs/hub/api and the Git LFS batch API. Parquet and PNG files are uploaded by LFS.
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
    """The state of the server.

    Attributes:
        url: The address of the server.
        token: The token that it accepts.
        repos: The content of each file by repository and path.
        private: Whether each repository is private.
        fail_at: Requests for a path with this ending get an error.
        requests: Method, path and authorization of every request.
        objects: The uploaded LFS objects by SHA-256.
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
    """Run a Hub until the end of the block."""
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

        def _respond(self, document: object = None, status: int = 200) -> None:
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _read_body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _authorized_path(self) -> list[str] | None:
            """Return the parts of the path, or ``None`` after a response with an error."""
            path = unquote(urlsplit(self.path).path)
            hub.requests.append((self.command, path, self.headers.get("Authorization")))
            if path.endswith(hub.fail_at):
                self._read_body()
                self._respond({"error": "the server failed"}, 500 if self.command != "POST" else 403)
                return None
            if not path.startswith("/objects/") and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self._read_body()
                self._respond({"error": "Invalid credentials"}, 401)
                return None
            return path.strip("/").split("/")

        def do_GET(self) -> None:
            match self._authorized_path():
                case ["api", "datasets", user, name, "tree", *_]:
                    files = hub.repos[f"{user}/{name}"]
                    self._respond(
                        [{"type": "file", "path": path, "size": len(files[path]), "oid": "0"} for path in files]
                    )
                case ["api", "datasets", user, name, *_]:
                    repo = f"{user}/{name}"
                    siblings = [{"rfilename": path} for path in hub.repos[repo]]
                    self._respond({"id": repo, "private": hub.private[repo], "siblings": siblings, "sha": "0" * 40})
                case None:
                    pass
                case _:
                    self._respond({"error": "not found"}, 404)

        def do_PUT(self) -> None:
            match self._authorized_path():
                case ["objects", oid]:
                    content = self._read_body()
                    assert hashlib.sha256(content).hexdigest() == oid
                    hub.objects[oid] = content
                    self._respond()

        def do_POST(self) -> None:
            parts = self._authorized_path()
            if parts is None:
                return
            body = self._read_body()
            match parts:
                case ["api", "repos", "create"]:
                    wanted = json.loads(body)
                    repo = f"{wanted['organization']}/{wanted['name']}"
                    assert wanted["type"] == "dataset"
                    if repo in hub.repos:
                        existing = f"{hub.url}/datasets/{repo}"
                        self._respond({"error": "You already created this dataset repo", "url": existing}, 409)
                        return
                    hub.repos[repo], hub.private[repo] = {}, wanted.get("visibility") == "private"
                    self._respond({"url": f"{hub.url}/datasets/{repo}", "name": repo, "id": repo})
                case ["api", "validate-yaml"]:
                    self._respond({"errors": [], "warnings": []})
                case ["api", "datasets", _, _, "preupload", "main"]:
                    files = [
                        {
                            "path": entry["path"],
                            "uploadMode": "lfs" if entry["path"].endswith((".parquet", ".png")) else "regular",
                            "shouldIgnore": False,
                        }
                        for entry in json.loads(body)["files"]
                    ]
                    self._respond({"files": files})
                case ["datasets", _, _, "info", "lfs", "objects", "batch"]:
                    objects = [
                        {**entry, "actions": {"upload": {"href": f"{hub.url}/objects/{entry['oid']}"}}}
                        for entry in json.loads(body)["objects"]
                    ]
                    self._respond({"transfer": "basic", "objects": objects})
                case ["api", "datasets", user, name, "commit", "main"]:
                    files = dict(hub.repos[f"{user}/{name}"])
                    for line in body.splitlines():
                        _apply(json.loads(line), files, hub.objects)
                    hub.repos[f"{user}/{name}"] = files
                    self._respond(
                        {
                            "success": True,
                            "commitOid": "1" * 40,
                            "commitUrl": f"{hub.url}/datasets/{user}/{name}/commit/{'1' * 40}",
                        }
                    )
                case _:
                    self._respond({"error": "not found"}, 404)

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
