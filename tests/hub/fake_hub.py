"""A hub on this machine: the addresses of the Hugging Face hub that huggingface_hub asks.

Repositories are kept in memory as lists of commits. What it does follows the hub's own API: upload
modes, git-lfs batches, commits as lines of JSON, and files under ``/resolve/``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_secretsecretsecret"


@dataclass
class Repo:
    """One repository: commits by branch and by id, oldest first."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit and return its id."""
        commit = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch or the beginning of its own id."""
        return self.branches.get(revision, revision if revision in self.commits else None)


class FakeHub(ThreadingHTTPServer):
    """Serves until it is closed.

    Attributes:
        repos: by ``OWNER/NAME``.
        moved: new names by old ones.
        stored: large files by their SHA-256.
        requests: method and path of all that was asked.
        broken: answer everything with 503.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.broken = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        """What HF_ENDPOINT is to be."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None:
        pass

    def _answer(
        self, status: int, content: Any = None, headers: dict[str, str] | None = None
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if not headers or "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")  # so that nobody reaches a closed hub
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str = "", message: str = "") -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._answer(status, {"error": message}, {k: v for k, v in headers.items() if v})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _handle(self) -> None:
        body = self._body()
        address = urlsplit(self.path)
        path = unquote(address.path)
        self.server.requests.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.server.broken:
            self._refuse(503)
        elif token and token != TOKEN:
            self._refuse(401, message="Invalid credentials in Authorization header")
        elif parts[0] == "lfs":
            self.server.stored[parts[1]] = body
            self._answer(200)
        elif path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(body), token)
        else:
            self._repo(parts, body, token, address.query)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _create(self, asked: dict[str, Any], token: str) -> None:
        name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
        if not token:
            self._refuse(401, message="Invalid username or password.")
        elif name.startswith("stranger/"):
            self._refuse(403, message="You don't have the rights to create a model there")
        elif name in self.server.repos:
            self._answer(409, {"url": f"{self.server.address}/{name}"})
        else:
            secret = asked.get("visibility") == "private" or asked.get("private")
            repo = self.server.repos[name] = Repo(private=bool(secret))
            repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
            self._answer(200, {"url": f"{self.server.address}/{name}", "id": name, "name": name})

    def _repo(self, parts: list[str], body: bytes, token: str, query: str) -> None:
        if parts[0] == "datasets":  # pages of models have no such part
            parts = parts[1:]
        api = parts[0] == "api" and parts[1] in {"models", "datasets"}
        name = "/".join(parts[2:4] if api else parts[:2]).removesuffix(".git")
        rest = parts[4:] if api else parts[2:]
        if name in self.server.moved:
            there = self.path.replace(name, self.server.moved[name])
            self._answer(307, None, {"Location": there})
            return
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and not token):
            self._refuse(401 if not token else 404, "RepoNotFound", "Repository not found")
            return
        revision = rest[1] if len(rest) > 1 and rest[0] != "info" else "main"
        if rest[:1] == ["branch"]:
            repo.branches.setdefault(revision, repo.branches["main"])
            self._answer(200)
            return
        commit = repo.find(revision)
        if commit is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return
        files = repo.commits[commit]
        match rest[0] if rest else "":
            case "" | "revision":
                self._answer(200, self._info(name, repo, commit, "blobs=" in query))
            case "tree":
                deep = "recursive=true" in query.lower()
                self._answer(200, self._tree(files, "/".join(rest[2:]), deep))
            case "preupload":
                asked = json.loads(body)["files"]
                modes = [
                    {"path": f["path"], "shouldIgnore": False, "uploadMode": "lfs"}
                    if f["path"].endswith(".safetensors")
                    else {"path": f["path"], "shouldIgnore": False, "uploadMode": "regular"}
                    for f in asked
                ]
                self._answer(200, {"files": modes})
            case "info":
                objects = [
                    {**item, "actions": {"upload": {"href": self._lfs(item["oid"])}}}
                    for item in json.loads(body)["objects"]
                ]
                self._answer(200, {"transfer": "basic", "objects": objects})
            case "commit":
                self._answer(200, self._commit(name, repo, revision, body))
            case "resolve":
                self._file(repo, commit, "/".join(rest[2:]), token)
            case _:
                self._refuse(404)

    def _lfs(self, oid: str) -> str:
        return f"{self.server.address}/lfs/{oid}"

    def _info(self, name: str, repo: Repo, commit: str, blobs: bool) -> dict[str, Any]:
        siblings = [
            {"rfilename": path, **({"size": len(data)} if blobs else {})}
            for path, data in repo.commits[commit].items()
        ]
        return {
            "_id": "0",
            "id": name,
            "modelId": name,
            "sha": commit,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "siblings": siblings,
            "tags": [],
        }

    def _tree(self, files: dict[str, bytes], folder: str, deep: bool) -> list[dict[str, Any]]:
        start, found = f"{folder}/" if folder else "", dict[str, dict[str, Any]]()
        for path, data in files.items():
            if not path.startswith(start):
                continue
            names = path.removeprefix(start).split("/")
            for count in range(1, len(names) if deep else min(2, len(names))):
                above = start + "/".join(names[:count])
                found[above] = {"type": "directory", "path": above, "size": 0, "oid": "0"}
            if deep or len(names) == 1:
                found[path] = self._entry(path, data)
        return list(found.values())

    @staticmethod
    def _entry(path: str, data: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {
            "type": "file",
            "path": path,
            "size": len(data),
            "oid": hashlib.sha1(data).hexdigest(),
        }
        if path.endswith(".safetensors"):
            digest = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 130}
        return entry

    def _commit(self, name: str, repo: Repo, branch: str, body: bytes) -> dict[str, Any]:
        files = dict(repo.commits[repo.branches[branch]])
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
            elif item["key"] == "deletedFile":
                del files[value["path"]]
        oid = repo.commit(files, branch)
        url = f"{self.server.address}/{name}/commit/{oid}"
        return {"success": True, "commitOid": oid, "commitUrl": url}

    def _file(self, repo: Repo, commit: str, path: str, token: str) -> None:
        data = repo.commits[commit].get(path)
        if repo.gated:
            self._refuse(403 if token else 401, "GatedRepo", "Access to this model is restricted")
        elif data is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            digest = hashlib.sha256(data).hexdigest()
            headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}
            part = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            if part:
                first, last = int(part[1]), min(int(part[2]), len(data) - 1)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                data = data[first : last + 1]
            headers["Content-Length"] = str(len(data))
            self._answer(206 if part else 200, data, headers)
