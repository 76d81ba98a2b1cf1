"""A model hub on loopback: an HTTP server with the routes that huggingface_hub uses, which fails on demand.

It serves the revision's information, the tree, and files with ranges, etags and the headers that carry LFS hashes. A
`Fault` describes a wrong answer to a request for a file; every request is recorded.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PIECE = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file: its bytes in memory or on disk, and the hash that the hub claims for it."""

    size: int
    sha256: str
    data: bytes | None = None
    path: Path | None = None
    lfs: bool = True

    def read(self, start: int, n: int) -> bytes:
        if self.data is not None:
            return self.data[start : start + n]
        assert self.path is not None
        with self.path.open("rb") as f:
            f.seek(start)
            return f.read(n)


@dataclass(kw_only=True)
class Fault:
    """A wrong answer to requests for files, `times` times (None: always), from the `after`th request on."""

    status: int = 0  # answer with this and nothing else
    headers: dict[str, str] = field(default_factory=dict)  # replace those of the answer
    ignore_range: bool = False
    close_after: int | None = None  # close the connection after so many bytes of body
    stall_after: int | None = None  # send no more after so many bytes, until the hub is closed
    body: bytes | None = None  # send this instead
    extra: bytes = b""  # send this after the body, without a Content-Length
    flip_at: int | None = None  # change the file's byte at this offset
    bytes_s: float | None = None  # send no faster, per connection
    redirect: str = ""  # to this address, with the path appended
    times: int | None = None
    after: int = 0


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request for a file or for information."""

    path: str
    range: str
    authorization: str
    host: str


class Hub:
    """`with Hub() as hub:` serves until the end of the block. `hub.env` makes huggingface_hub and our code use it."""

    def __init__(self, *, token: str = "", gated: bool = False, send_buffer: int = 1 << 16) -> None:
        self.token, self.gated, self.send_buffer = token, gated, send_buffer
        self.commit = COMMIT
        self.refuses_tokens = ""  # the words of a 401 to every request with a token
        self.renamed: dict[str, str] = {}  # old name of a repository -> its name now
        self.downloads: dict[str, int] = {}
        self.gated_repos: set[str] = set()
        self.lists_sizes = self.sends_etags = True
        self.files: dict[str, dict[str, Entry]] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.sent_bytes = 0
        self.most_at_once = 0
        self.at_once = 0
        self._gate = threading.Lock()
        self.closing = threading.Event()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Hub:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def env(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url}

    def add(self, repo: str, name: str, content: bytes | Path, *, sha256: str = "", lfs: bool = True) -> Entry:
        """Put a file into a repository. `sha256` is what the hub claims; by default the true one."""
        if isinstance(content, Path):
            claimed = sha256 or hashlib.sha256(content.read_bytes()).hexdigest()
            entry = Entry(size=content.stat().st_size, sha256=claimed, path=content, lfs=lfs)
        else:
            claimed = sha256 or hashlib.sha256(content).hexdigest()
            entry = Entry(size=len(content), sha256=claimed, data=content, lfs=lfs)
        self.files.setdefault(repo, {})[name] = entry
        return entry

    def file_requests(self) -> list[Seen]:
        return [s for s in self.seen if "/resolve/" in s.path]

    def next_fault(self) -> Fault:
        """The fault for this request for a file; an empty one if none is due."""
        with self._gate:
            for fault in self.faults:
                if fault.after > 0:
                    fault.after -= 1
                    continue
                if fault.times is None or fault.times > 0:
                    fault.times = None if fault.times is None else fault.times - 1
                    return fault
        return Fault()

    def count(self, n: int) -> None:
        with self._gate:
            self.sent_bytes += n

    def entered(self, by: int) -> None:
        with self._gate:
            self.at_once += by
            self.most_at_once = max(self.most_at_once, self.at_once)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect: tests do so on purpose."""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 0

        def setup(self) -> None:
            super().setup()
            if hub.send_buffer:  # little may be under way when a client is killed
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, hub.send_buffer)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            path = unquote(parts.path)
            auth, host = self.headers.get("authorization", ""), self.headers.get("host", "")
            seen = Seen(path=path, range=self.headers.get("range", ""), authorization=auth, host=host)
            hub.seen.append(seen)
            if path == "/api/models":
                self.found(parse_qs(parts.query))
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path):
                self.information(match[1], match[2], blobs="blobs" in parse_qs(parts.query))
            elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+).*", path):
                self.tree(match[1])
            elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                hub.entered(1)
                try:
                    self.file(match[1], match[3])
                finally:
                    hub.entered(-1)
            else:
                self.reply(404, {})

        def allowed(self) -> bool:
            if hub.refuses_tokens and self.headers.get("authorization"):
                self.reply(401, {"X-Error-Message": hub.refuses_tokens}, b"{}")
                return False
            if not hub.token or self.headers.get("authorization") == f"Bearer {hub.token}":
                return True
            code = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."} if hub.gated else {}
            self.reply(403 if hub.gated else 401, code, b"{}")
            return False

        def found(self, query: dict[str, list[str]]) -> None:
            """Repositories whose names have the words, as huggingface.co answers `list_models`."""
            if not self.allowed():
                return
            words = query.get("search", [""])[0].lower().split()
            rows = [
                {
                    "_id": "0", "id": repo, "modelId": repo, "downloads": hub.downloads.get(repo, 0), "likes": 1,
                    "gated": "auto" if repo in hub.gated_repos else False, "lastModified": "2026-11-02T10:00:00.000Z",
                }
                for repo, files in hub.files.items()
                if all(w in repo.lower() for w in words) and any(n.endswith(".gguf") for n in files)
            ]  # fmt: skip
            rows.sort(key=lambda row: -int(str(row["downloads"])))
            body = json.dumps(rows[: int(query.get("limit", ["100"])[0])]).encode()
            self.reply(200, {"content-type": "application/json"}, body)

        def information(self, repo: str, revision: str, *, blobs: bool) -> None:
            if not self.allowed():
                return
            if new := hub.renamed.get(repo):
                self.reply(307, {"location": self.path.replace(repo, new, 1)})
                return
            if repo not in hub.files:
                self.reply(404, {"X-Error-Code": "RepoNotFound"}, b"{}")
                return
            if revision not in ("main", hub.commit):
                self.reply(404, {"X-Error-Code": "RevisionNotFound"}, b"{}")
                return
            siblings = [
                self.sibling(n, e) if blobs and hub.lists_sizes else {"rfilename": n}
                for n, e in hub.files[repo].items()
            ]
            body = {"id": repo, "modelId": repo, "sha": hub.commit, "siblings": siblings, "private": False}
            self.reply(200, {"content-type": "application/json"}, json.dumps(body).encode())

        def tree(self, repo: str) -> None:
            if not self.allowed():
                return
            rows = []
            for name, entry in hub.files.get(repo, {}).items():
                row: dict[str, object] = {"type": "file", "path": name, "size": entry.size, "oid": blob_id(entry)}
                if entry.lfs:
                    row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 134}
                rows.append(row)
            self.reply(200, {"content-type": "application/json"}, json.dumps(rows).encode())

        def sibling(self, name: str, entry: Entry) -> dict[str, object]:
            found: dict[str, object] = {"rfilename": name, "size": entry.size, "blobId": blob_id(entry)}
            if entry.lfs:
                found["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": 134}
            return found

        def file(self, repo: str, name: str) -> None:
            fault = hub.next_fault()
            if fault.redirect:
                self.reply(302, {"location": fault.redirect + self.path})
                return
            entry = hub.files.get(repo, {}).get(name)
            if not self.allowed():
                return
            if entry is None:
                self.reply(404, {"X-Error-Code": "EntryNotFound"})
                return
            if fault.status:
                self.reply(fault.status, fault.headers)
                return
            self.send_part(entry, fault)

        def send_part(self, entry: Entry, fault: Fault) -> None:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
            start, end, status = 0, entry.size, 200
            if wanted and not fault.ignore_range:
                start, end = int(wanted[1]), min(int(wanted[2] or entry.size - 1) + 1, entry.size)
                status = 206
            if start >= entry.size > 0:
                self.reply(416, {"content-range": f"bytes */{entry.size}"})
                return
            tag = entry.sha256 if entry.lfs else blob_id(entry)
            headers = {
                "etag": f'"{tag}"',
                "x-linked-etag": f'"{tag}"',
                "x-linked-size": str(entry.size),
                "x-repo-commit": hub.commit,
                "accept-ranges": "bytes",
                "content-type": "application/octet-stream",
            }
            if not hub.sends_etags:
                headers = {k: v for k, v in headers.items() if not k.endswith("etag")}
            if status == 206:
                headers["content-range"] = f"bytes {start}-{end - 1}/{entry.size}"
            if not fault.extra:
                headers["content-length"] = str(len(fault.body) if fault.body is not None else end - start)
            else:
                headers["connection"] = "close"
            self.head(status, headers | fault.headers)
            if self.command == "GET":
                self.body(entry, start, end, fault)

        def body(self, entry: Entry, start: int, end: int, fault: Fault) -> None:
            if fault.body is not None:
                self.wfile.write(fault.body)
                return
            at, began = start, time.monotonic()
            piece = PIECE if fault.bytes_s is None else min(PIECE, max(1, int(fault.bytes_s / 400)))
            while at < end:
                stop = min(x for x in (fault.close_after, fault.stall_after, end - start) if x is not None)
                data = bytearray(entry.read(at, min(piece, end - at, max(0, stop - (at - start)))))
                if not data:
                    if fault.stall_after is not None and fault.stall_after <= at - start:
                        hub.closing.wait(30)
                    self.close_connection = True
                    self.connection.close()
                    return
                if fault.flip_at is not None and at <= fault.flip_at < at + len(data):
                    data[fault.flip_at - at] ^= 0xFF
                hub.count(len(data))  # before sending, so that received bytes are always counted
                self.wfile.write(data)
                at += len(data)
                if fault.bytes_s:
                    due = began + (at - start) / fault.bytes_s - time.monotonic()
                    hub.closing.wait(max(0.0, due))
            if fault.extra:
                self.wfile.write(fault.extra)
                self.close_connection = True

        def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.head(status, {"content-length": str(len(body)), **headers})
            if self.command == "GET":
                self.wfile.write(body)

        def head(self, status: int, headers: dict[str, str]) -> None:
            lines = [f"HTTP/1.1 {status} X", *(f"{k}: {v}" for k, v in headers.items())]
            self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    return Handler


def blob_id(entry: Entry) -> str:
    """git's blob id: of the file, or of a text like its LFS pointer."""
    if entry.lfs or entry.data is None:
        return hashlib.sha1(entry.sha256.encode()).hexdigest()
    return hashlib.sha1(b"blob %d\0" % entry.size + entry.data).hexdigest()
