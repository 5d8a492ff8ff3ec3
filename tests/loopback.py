"""A server on this computer for the tests of downloads.

It misbehaves as it is told, one fault a request.
"""

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """``files``: path -> bytes.

    ``faults``: path -> names of what goes wrong in each request in turn; then all is well.
    """

    def __init__(self, address: str):
        self.address, self.files, self.faults, self.requests = address, {}, {}, []

    def url(self, path: str) -> str:
        return self.address + path

    def record(self, number: int, names: list[str]) -> None:
        """Serve a Zenodo record of some of the files, at ``/api/<number>``."""
        entries = [
            {
                "key": name,
                "size": len(self.files[f"/{name}"]),
                "links": {"self": self.url(f"/{name}")},
                "checksum": "md5:" + hashlib.md5(self.files[f"/{name}"]).hexdigest(),
            }
            for name in names
        ]
        self.files[f"/api/{number}"] = json.dumps({"id": number, "files": entries}).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_: Server

    def log_message(self, *_):
        pass

    def do_GET(self):
        server = self.server_
        start = int(
            (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0]
        )
        server.requests.append((self.path, start))
        fault = server.faults.get(self.path, [])
        fault = fault.pop(0) if fault else ""
        self.close_connection = True
        if self.path not in server.files or fault.isdigit():
            self.send_error(int(fault or 404))
            return
        data = server.files[self.path]
        if fault == "no ranges":
            start = 0
        if start >= len(data) > 0:
            self.send_error(416)
            return
        self.reply(data, start, fault)

    def reply(self, data: bytes, start: int, fault: str) -> None:
        body = data[start:]
        if fault == "wrong range":
            body = data[start + 7 :]
        if fault == "corrupt":
            body = bytes([body[0] ^ 255]) + body[1:]
        if fault == "long":
            body += b"more than there should be"
        if fault == "redirect":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        announced = {
            "announce more": len(body) + 1000,
            "announce less": len(body) // 2,
            "announce nothing": None,
        }
        length = announced.get(fault, len(body))
        self.send_response(206 if start else 200)
        if start:
            first = start + 7 * (fault == "wrong range")
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body[: len(body) // 3] if fault == "drop" else body)
        if fault == "stall":
            threading.Event().wait(3)


@contextmanager
def serve():
    """A :class:`Server` while the block runs."""
    handler = type("OneHandler", (Handler,), {})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    handler.server_ = Server(f"http://127.0.0.1:{http.server_port}")
    threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield handler.server_
    finally:
        http.shutdown()
        http.server_close()
