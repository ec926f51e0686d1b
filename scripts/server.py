"""A static server like the one a site is published on: gzip, and 404.html for what is missing."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_TEXT = {".html", ".css", ".js", ".json", ".svg", ".xml"}


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name upstream
        pass

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if path.is_file():
            self._send(path, HTTPStatus.OK)
        else:
            self._send(Path(self.directory) / "404.html", HTTPStatus.NOT_FOUND)

    def _addressed(self, path: Path) -> bytes:
        """Instant navigation compares the sitemap's port with the page's."""
        if path.name != "sitemap.xml":
            return path.read_bytes()
        return path.read_bytes().replace(b"//127.0.0.1:8000", b"//" + self.headers["Host"].encode())

    def _send(self, path: Path, code: HTTPStatus) -> None:
        body = self._addressed(path)
        self.send_response(code)
        self.send_header("Content-Type", f"{self.guess_type(path)}")
        if path.suffix in _TEXT:
            body = gzip.compress(body)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine; give its address."""
    handler = partial(_Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
