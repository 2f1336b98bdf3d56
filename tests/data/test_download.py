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
    """Answers /good, /broken (half of what it promised), /other (another file), /whole (no ranges), /gone (404)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        kind, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.server.seen.append((kind, wanted))
        if kind == "gone":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and kind != "whole" else 0
        content = CONTENT[::-1] if kind == "other" else CONTENT
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : len(content) // 2] if kind == "broken" else content[start:])

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
    return Remote("set.gz", SHA256, tuple(server.url(path) for path in paths))


def test_the_next_mirror_is_asked(server: Server, tmp_path: Path) -> None:
    path = fetch(remote(server, "gone", "other", "good"), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "set.gz"
    assert path.read_bytes() == CONTENT
    assert [kind for kind, _ in server.seen] == ["gone", "other", "good"]
    fetch(remote(server, "good"), path.parent)
    assert len(server.seen) == 3, "what is there is not fetched again"


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot download set\.gz from .*broken"):
        fetch(remote(server, "broken"), tmp_path)
    assert not (tmp_path / "set.gz").exists()
    half = (tmp_path / "set.gz.part").stat().st_size
    assert 0 < half <= len(CONTENT) // 2
    assert fetch(remote(server, "good"), tmp_path).read_bytes() == CONTENT
    assert server.seen[-1] == ("good", f"bytes={half}-")
    assert not (tmp_path / "set.gz.part").exists()


def test_a_server_that_cannot_resume_starts_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.gz.part").write_bytes(b"stale beginning")
    assert fetch(remote(server, "whole"), tmp_path).read_bytes() == CONTENT


def test_a_part_that_was_complete_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.gz.part").write_bytes(CONTENT)
    assert fetch(remote(server, "good"), tmp_path).read_bytes() == CONTENT


def test_another_file_never_gets_the_name(server: Server, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"other \(what it sent has another SHA-256\), .*gone \(HTTP 404\); fetch it by"
    ):
        fetch(remote(server, "other", "gone"), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_a_folder_that_cannot_be_written_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot write to .*file"):
        fetch(remote(server, "good"), tmp_path / "file")
    assert server.seen == []
