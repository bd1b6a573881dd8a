"""A real S3 endpoint on loopback for the tests that are marked `s3`: the server of moto.

    def test_something(s3):
        values = ValueFsspec(s3.url(), s3.options)

`s3.url()` makes a bucket of its own each time. `faulty_s3` is a proxy before the same server that
answers as its `fault` says, and counts what it is asked.
"""

from __future__ import annotations

import http.client
import importlib.util
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.helpers.processes import free_port

__all__ = ["FaultyS3", "S3Server", "faulty_s3", "s3"]

_START_TIMEOUT = 40.0
_NEEDED = ("moto", "flask", "s3fs")


@dataclass
class S3Server:
    """An endpoint, and how to reach it."""

    endpoint: str

    @property
    def options(self) -> dict[str, Any]:
        """What ValueFsspec takes; plain data, as in fleche.toml."""
        return {
            "key": "somebody",
            "secret": "sesame",
            "client_kwargs": {"endpoint_url": self.endpoint, "region_name": "us-east-1"},
        }

    def url(self) -> str:
        """Make a bucket and return a url in it."""
        bucket = f"test-{secrets.token_hex(6)}"
        self.request("PUT", bucket)
        return f"s3://{bucket}/some where"

    def request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Ask the server itself, past s3fs."""
        kind = {"Content-Type": "application/octet-stream"}
        request = urllib.request.Request(f"{self.endpoint}/{path}", body, kind, method=method)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bytes(answer.read())


@dataclass
class FaultyS3(S3Server):
    """A proxy with faults.

    `fault(method, path)` returns None (nothing wrong), a number (a status to answer with), or
    "stall" (never answer), "cut" (half of the answer) or "drop" (no answer at all).
    """

    fault: Callable[[str, str], Any] = lambda method, path: None
    requests: list[tuple[str, str]] = field(default_factory=list)
    most: int = 0
    """The most requests that were under way at once."""


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """The server; it is this session's own."""
    _need()
    _start_threads()
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    nowhere = subprocess.DEVNULL
    # nothing of fleche runs in it, of which to measure the coverage
    environment = {name: each for name, each in os.environ.items() if not name.startswith("COV")}
    server = subprocess.Popen(
        command, stdin=nowhere, stdout=nowhere, stderr=nowhere, env=environment
    )
    try:
        _await(server, port)
        yield S3Server(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def faulty_s3(s3: S3Server) -> Iterator[FaultyS3]:
    """A proxy of this test's own."""
    found = FaultyS3("")
    proxy = _Proxy(found, s3.endpoint)
    found.endpoint = f"http://127.0.0.1:{proxy.server_port}"
    thread = threading.Thread(target=proxy.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield found
    finally:
        proxy.over.set()
        proxy.shutdown()
        proxy.server_close()
        thread.join()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, faulty: FaultyS3, endpoint: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faulty = faulty
        self.upstream = endpoint.partition("://")[2]
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._under_way = 0

    @contextmanager
    def counted(self, method: str, path: str) -> Iterator[None]:
        """Note a request, and how many there are at this moment."""
        with self._lock:
            self.faulty.requests.append((method, path))
            self._under_way += 1
            self.faulty.most = max(self.faulty.most, self._under_way)
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1


class _Handler(BaseHTTPRequestHandler):
    server: _Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.counted(self.command, self.path):
            try:
                self._answer(body, self.server.faulty.fault(self.command, self.path))
            except OSError:  # the client has gone
                self.close_connection = True

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815

    def _answer(self, body: bytes, fault: Any) -> None:
        if fault == "stall":
            self.server.over.wait(60)
        if fault in ("stall", "drop"):
            self.close_connection = True
        elif isinstance(fault, int):
            self._send(fault, {"Content-Type": "application/xml"}, _error(fault))
        else:
            self._forward(body, cut=fault == "cut")

    def _forward(self, body: bytes, *, cut: bool) -> None:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            upstream.request(self.command, self.path, body or None, dict(self.headers.items()))
            answer = upstream.getresponse()
            data = answer.read()
            self._send(answer.status, dict(answer.getheaders()), data, cut=cut)
        finally:
            upstream.close()

    def _send(
        self, status: int, headers: dict[str, str], data: bytes, *, cut: bool = False
    ) -> None:
        headers = {name.title(): value for name, value in headers.items()}
        for name in ("Transfer-Encoding", "Connection"):
            headers.pop(name, None)
        if self.command != "HEAD":
            headers["Content-Length"] = str(len(data))
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True


def _error(status: int) -> bytes:
    code = {403: "AccessDenied", 404: "NoSuchKey", 503: "ServiceUnavailable"}.get(
        status, "InternalError"
    )
    return f"<Error><Code>{code}</Code><Message>{code}, says the proxy</Message></Error>".encode()


def _start_threads() -> None:
    """Start what fsspec keeps for the rest of the process, so that no test leaks it."""
    from fsspec.asyn import get_loop

    loop, pool = get_loop(), ThreadPoolExecutor(1)
    pool.submit(int).result()
    loop.call_soon_threadsafe(loop.set_default_executor, pool)


def _need() -> None:
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        told = f"the S3 server needs {', '.join(missing)}: pip install 'moto[server]' s3fs"
        if os.environ.get("CI") == "true":
            pytest.fail(told)
        pytest.skip(told)


def _await(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the S3 server of moto does not start")
