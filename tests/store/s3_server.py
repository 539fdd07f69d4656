"""A real S3 server (moto) in a process of its own, and a proxy before it that delays, fails, or loses answers."""

import http.client
import http.server
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1"}


@contextmanager
def moto_server() -> Iterator[str]:
    """Address of a fresh server; it is stopped by its process id at the end."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def create_bucket(address: str, bucket: str) -> None:
    with urllib.request.urlopen(urllib.request.Request(f"{address}/{bucket}", method="PUT")) as answer:
        assert answer.status == 200


@dataclass
class Proxy:
    """What happens to each request. `fail(method, path, number)`: None, "500", "503" or "lost" (done, but the answer is cut)."""

    address: str = ""
    latency_s: float = 0.0
    fail: Callable[[str, str, int], str | None] = lambda method, path, number: None
    drop_headers: tuple[str, ...] = ()
    seen: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def proxy_before(address: str) -> Iterator[Proxy]:
    """A proxy in a thread of this process."""
    proxy = Proxy()
    host = address.removeprefix("http://")

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_any(self) -> None:
            proxy.seen.append((self.command, self.path))
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            what = proxy.fail(self.command, self.path, len(proxy.seen))
            time.sleep(proxy.latency_s)
            if what in ("500", "503"):
                self.answer(int(what), [], b"<Error><Code>InternalError</Code></Error>")
                return
            upstream = http.client.HTTPConnection(host, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() not in proxy.drop_headers}
            upstream.request(self.command, self.path, body, headers)
            response = upstream.getresponse()
            content = response.read()
            upstream.close()
            if what == "lost":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            length = response.headers.get("content-length", str(len(content)))
            self.answer(response.status, [*response.getheaders(), ("content-length", length)], content)

        def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            skip = {"connection", "transfer-encoding"}
            sent = {k.lower(): v for k, v in headers if k.lower() not in skip} or {"content-length": str(len(content))}
            for name, value in sent.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    proxy.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
