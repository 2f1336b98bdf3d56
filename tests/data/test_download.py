"""Downloads from a server of our own, sound and unsound."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from consistency_lab.data.download import Remote, fetch
from consistency_lab.errors import UserError

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers /good, /broken (half of what it promised), /other (another file), /gone (404)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        kind = self.path.lstrip("/")
        self.server.seen.append(kind)
        if kind == "gone":
            self.send_error(404)
            return
        content = CONTENT[::-1] if kind == "other" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if kind == "broken" else content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def remote(server: Server, *paths: str) -> Remote:
    return Remote("set.gz", f"sha256:{SHA256}", tuple(server.url(path) for path in paths))


def test_the_next_mirror_is_asked(server: Server, tmp_path: Path) -> None:
    path = fetch(remote(server, "gone", "other", "good"), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "set.gz"
    assert path.read_bytes() == CONTENT
    assert server.seen == ["gone", "other", "good"]
    fetch(remote(server, "good"), path.parent)
    assert len(server.seen) == 3, "what is there is not fetched again"


def test_half_a_file_never_gets_the_name(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot download set\.gz from .*broken"):
        fetch(remote(server, "broken"), tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert fetch(remote(server, "broken", "good"), tmp_path).read_bytes() == CONTENT


def test_another_file_never_gets_the_name(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"other \(what it sent has another checksum\), .*gone \(HTTP 404\); fetch it by"
    ):
        fetch(remote(server, "other", "gone"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot write to .*file"):
        fetch(remote(server, "good"), tmp_path / "file")
    assert server.seen == []
