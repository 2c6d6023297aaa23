"""A server that answers what huggingface_hub asks of the Hub: repositories, commits, files, LFS.

Tests that upload ignore `OLD_UPLOAD`.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import yaml
from huggingface_hub import constants
from huggingface_hub.utils import close_session

TOKEN = "hf_token_of_a_test"
# huggingface_hub 2.4 uploads in a way that its own transport calls outdated.
OLD_UPLOAD = "ignore:Use 'content=:DeprecationWarning"
Files = dict[str, bytes]


@dataclass
class Repo:
    """A repository, its commits from the first to the newest."""

    commits: list[tuple[str, Files]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    def commit(self, files: Files) -> str:
        """Add a commit; returns its hash."""
        before = self.commits[-1][1] if self.commits else {}
        names = f"{len(self.commits)} {sorted(files)}"
        sha = hashlib.sha1(names.encode()).hexdigest()
        self.commits.append((sha, before | files))
        return sha

    def at(self, revision: str) -> tuple[str, Files] | None:
        """Hash and files of a revision."""
        if revision == "main":
            return self.commits[-1]
        wanted = self.tags.get(revision, revision)
        return next((each for each in self.commits if each[0] == wanted), None)


@dataclass
class Hub:
    """What the server holds, and what it was asked.

    Attributes:
        read_only: Whether the token may write nothing.
        asked: Method and path of each request.
    """

    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    read_only: bool = False
    asked: list[str] = field(default_factory=list)
    address: str = ""

    def add(self, name: str, files: Files, **options: Any) -> Repo:
        """A repository with one commit."""
        self.repos[name] = Repo(**options)
        self.repos[name].commit(files)
        return self.repos[name]


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, code: str = "", commit: str = "", body: Any = None) -> None:
        super().__init__(code)
        self.body = {} if body is None else body
        named = {"X-Error-Code": code, "X-Repo-Commit": commit}
        self.status, self.headers = status, {key: value for key, value in named.items() if value}


class Handler(BaseHTTPRequestHandler):
    """Routes of the Hub, as huggingface_hub 2 calls them."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    do_GET = do_POST = do_PUT = do_HEAD

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            headers, content = self._route(path, body)
            status = 200
        except Refusal as refusal:
            status, headers = refusal.status, refusal.headers
            content = json.dumps(refusal.body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _route(self, path: str, body: bytes) -> tuple[dict[str, str], bytes]:
        routes = [
            (r"/api/repos/create", self._create),
            (r"/api/validate-yaml", self._validate),
            (r"/api/models/(\S+?/[^/]+)/preupload/main", self._preupload),
            (r"/api/models/(\S+?/[^/]+)/commit/main", self._commit),
            (r"/api/models/(\S+?/[^/]+)/revision/(\S+)", self._info),
            (r"/api/models/([^/]+/[^/]+)", self._info),
            (r"/(\S+?/[^/]+)\.git/info/lfs/objects/batch", self._lfs_batch),
            (r"/objects/(\w+)", self._put_object),
            (r"/(\S+?/[^/]+)/resolve/([^/]+)/(\S+)", self._file),
        ]
        for pattern, answer in routes:
            found = re.fullmatch(pattern, path)
            if found:
                given = answer(*found.groups(), *([body] if body else []))  # type: ignore[operator]
                return given if isinstance(given, tuple) else ({}, json.dumps(given).encode())
        raise Refusal(404)

    def _readable(self, name: str) -> Repo:
        repo = self.hub.repos.get(name)
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo is None or (repo.private and not known):
            raise Refusal(404 if known else 401, "RepoNotFound")
        return repo

    def _require_writable(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refusal(401)
        if self.hub.read_only:
            raise Refusal(403)

    def _create(self, body: bytes) -> Any:
        self._require_writable()
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if name in self.hub.repos:
            raise Refusal(409, body={"url": f"{self.hub.address}/{name}"})
        private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
        self.hub.repos[name] = Repo(private=private)
        self.hub.repos[name].commit({".gitattributes": b""})
        return {"url": f"{self.hub.address}/{name}"}

    def _validate(self, body: bytes) -> Any:
        content = json.loads(body)["content"]
        yaml.safe_load(content.split("---\n")[1])
        return {"errors": [], "warnings": []}

    def _preupload(self, name: str, body: bytes) -> Any:
        self._require_writable()
        self._readable(name)
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        return {"files": modes}

    def _lfs_batch(self, name: str, body: bytes) -> Any:
        self._require_writable()
        href = f"{self.hub.address}/objects"
        objects = [
            {**each, "actions": {"upload": {"href": f"{href}/{each['oid']}"}}}
            for each in json.loads(body)["objects"]
        ]
        return {"transfer": "basic", "objects": objects}

    def _put_object(self, oid: str, body: bytes) -> Any:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refusal(400)
        self.hub.objects[oid] = body
        return {}

    def _commit(self, name: str, body: bytes) -> Any:
        self._require_writable()
        files: Files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
        sha = self._readable(name).commit(files)
        return {"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha}

    def _info(self, name: str, revision: str = "main") -> Any:
        found = self._readable(name).at(revision)
        if found is None:
            raise Refusal(404, "RevisionNotFound")
        siblings = [{"rfilename": path} for path in sorted(found[1])]
        return {"id": name, "sha": found[0], "siblings": siblings}

    def _file(self, name: str, revision: str, path: str) -> tuple[dict[str, str], bytes]:
        repo = self._readable(name)
        if repo.gated:
            raise Refusal(403, "GatedRepo")
        found = repo.at(revision)
        if found is None:
            raise Refusal(404, "RevisionNotFound")
        sha, files = found
        if path not in files:
            raise Refusal(404, "EntryNotFound", commit=sha)
        etag = hashlib.sha256(files[path]).hexdigest()
        return {"X-Repo-Commit": sha, "ETag": f'"{etag}"'}, files[path]


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub at an address of its own, until the block ends."""
    hub = Hub()
    handler = type("HandlerOfHub", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def local_hub(folder: Path) -> Iterator[Hub]:
    """An empty hub, at which huggingface_hub asks in this process; its cache lies in a folder."""
    huggingface_hub.utils.disable_progress_bars()
    with serving() as hub, pytest.MonkeyPatch.context() as patch:
        ask_at(patch, hub.address)
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        # Uploads by HTTP alone: the other protocol has servers of its own.
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_TOKEN_PATH", str(folder / "no token"))
        patch.setenv("HF_TOKEN", TOKEN)
        close_session()
        yield hub
        close_session()


def ask_at(patch: pytest.MonkeyPatch, address: str) -> None:
    """Let huggingface_hub take an address for the Hub's."""
    place = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", place)
