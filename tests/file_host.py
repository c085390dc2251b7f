"""A web server on this machine alone, which does what hosts do: ranges, faults, redirects, pages."""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hosted:
    """One file, and how it is served.

    Attributes:
        data: its bytes.
        etag: with its quotes.
        modified: date in the words of the protocol.
        ranges: heeded ``always``, ``never``, ``blindly``: whatever If-Range says, or ``wrongly``: from the start.
        kind: content type.
        length: ``stated``, or ``none``: the line ends with the file.
        headers: more of them, also of HEAD.
        faults: of the first answers to GET, one each: a status, or the number of bytes after which the line breaks.
        status: of all further answers.
        head_status: of answers to HEAD, where it is another one.
    """

    data: bytes = b""
    etag: str | None = '"one"'
    modified: str | None = None
    ranges: str = "always"
    kind: str = "application/octet-stream"
    length: str = "stated"
    headers: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[str, int]] = field(default_factory=list)
    status: int = 200
    head_status: int | None = None


class FileHost:
    """Files by path; ``asked`` has method, path and Range of each request."""

    def __init__(self) -> None:
        self.files: dict[str, Hosted] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.address = ""

    def serve(self, path: str, data: bytes = b"", **how) -> str:
        self.files[path] = Hosted(data, **how)
        return f"{self.address}{path}"

    def count(self, method: str = "GET") -> int:
        return sum(asked[0] == method for asked in self.asked)

    def ranges(self) -> list[str | None]:
        return [asked[2] for asked in self.asked if asked[0] == "GET"]


@contextmanager
def file_host():
    host = FileHost()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body):
            host.asked.append((self.command, self.path, self.headers.get("Range")))
            file = host.files.get(self.path, Hosted(b"not here", kind="text/plain", status=404))
            kind, number = file.faults.pop(0) if body and file.faults else ("status", file.status)
            if not body and file.head_status is not None:
                number = file.head_status
            start, status = 0, number if kind == "status" else 200
            asked = self.headers.get("Range")
            if asked and status == 200 and file.ranges != "never":
                same = self.headers.get("If-Range") in (None, file.etag, file.modified)
                if same or file.ranges == "blindly":
                    start = 0 if file.ranges == "wrongly" else int(asked.removeprefix("bytes=").partition("-")[0])
                    status = 206 if start < len(file.data) else 416
            data = file.data[start:] if status != 416 else b""
            self.send_response(status)
            for name, value in {"ETag": file.etag, "Last-Modified": file.modified, "Content-Type": file.kind}.items():
                if value is not None:
                    self.send_header(name, value)
            for name, value in file.headers.items():
                self.send_header(name, value)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(file.data) - 1}/{len(file.data)}")
            self.send_header("Connection", "close")
            if file.length == "stated":
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data[:number] if kind == "cut" else data)

    class Server(ThreadingHTTPServer):
        daemon_threads = False  # All are waited for at the end, so that no socket is left open.

        def handle_error(self, request, client_address):
            """Callers may hang up."""
            if not isinstance(sys.exc_info()[1], ConnectionError):
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    host.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield host
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
