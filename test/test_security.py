# SPDX-License-Identifier: Apache-2.0
"""The promises of docs/security.md: what is downloaded, read, written and sent."""

from __future__ import annotations

import ast
import io
import os
import re
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from scrfd_ros.models.catalogue import PackageSource, UrlSource, load_catalogue
from scrfd_ros.models.checksums import SHA256
from scrfd_ros.models.transfer import DownloadSession, SourceError, download, unpack, unpack_zip

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "scrfd_ros").rglob("*.py"))
POLICY = ROOT / "config" / "sros2" / "policy.xml"

# --- Code of others -----------------------------------------------------------------------------

REFUSED_MODULES = {"dill", "joblib", "marshal", "pickle", "shelve", "torch"}
REFUSED_CALLS = {
    *("eval", "exec", "compile", "__import__"),
    *("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all"),
    *("os.system", "os.popen", "tempfile.mktemp", "ssl._create_unverified_context"),
    *("np.load", "np.fromfile", "np.loadtxt"),
}
REFUSED_METHODS = {"extract", "extractall", "read_pickle"}
REFUSED_ARGUMENTS = {"shell", "allow_pickle", "verify"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_unpickles_evaluates_or_unpacks_blindly(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not {name.split(".")[0] for name in names} & REFUSED_MODULES, ast.unparse(node)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in REFUSED_CALLS, f"line {node.lineno}: {called}"
            assert called.rpartition(".")[2] not in REFUSED_METHODS, f"line {node.lineno}: {called}"
            arguments = {keyword.arg for keyword in node.keywords}
            assert not arguments & REFUSED_ARGUMENTS, f"line {node.lineno}: {called}"


# --- Downloads ----------------------------------------------------------------------------------

PINNED_AT_FIRST_USE = {"1g", "34g", "realesrgan_x4plus"}
"""Models with a source without a published checksum; docs/security.md names them."""


def test_sources_are_https_or_pinned_packages_and_have_checksums() -> None:
    catalogue = load_catalogue()
    without = set()
    for entry in (*catalogue.models.values(), *catalogue.pictures.values()):
        for source in entry.sources:
            if isinstance(source, UrlSource):
                assert source.url.startswith("https://")
            else:
                assert isinstance(source, PackageSource)
                assert re.fullmatch(SHA256, source.package.sha256)
            if source.sha256 is None:
                without.add(entry.name)
    assert without == PINNED_AT_FIRST_USE
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    assert all(f"`{name}`" in text for name in without)


def test_nothing_is_fetched_in_plain_text() -> None:
    with pytest.raises(SourceError, match="which is not HTTPS"):
        download("http://127.0.0.1:1/model.onnx", io.BytesIO(), None, DownloadSession())


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> io.BytesIO:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content


def test_an_archive_that_unpacks_to_more_than_is_allowed_is_refused(tmp_path: Path) -> None:
    bomb = zipped({"model.onnx": bytes(50_000_000)})
    assert len(bomb.getvalue()) < 100_000
    with (tmp_path / "out").open("w+b") as out:
        with pytest.raises(SourceError, match=r"more than 1,000,000 bytes"):
            unpack_zip(bomb, "model.onnx", out, max_bytes=1_000_000)
        assert out.tell() <= 1_000_000


def test_members_of_an_archive_lead_nowhere(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    archive = zipped({"../../escaped.onnx": b"1", str(tmp_path / "absolute.onnx"): b"2"})
    for member, content in (("escaped.onnx", b"1"), ("absolute.onnx", b"2")):
        with (folder / "out").open("w+b") as out:
            unpack_zip(archive, member, out)
            out.seek(0)
            assert out.read() == content
    assert [path.name for path in tmp_path.rglob("*")] == ["models", "out"]


def test_compressions_that_claim_memory_are_refused() -> None:
    with pytest.raises(SourceError, match="deflate"):
        unpack_zip(zipped({"a.onnx": b"1"}, zipfile.ZIP_LZMA), "a.onnx", io.BytesIO())


def test_a_file_that_cannot_be_written_is_not_called_a_damaged_archive() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        unpack(["a"], lambda _: io.BytesIO(b"1"), "a", Full())


# --- Files that are written ---------------------------------------------------------------------


def test_commands_make_nothing_that_everybody_can_write(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from scrfd_ros.cli.main import main\n"
        "from scrfd_ros.files import write_bytes\n"
        "main(['models', '--list'])\n"
        "write_bytes(Path(sys.argv[1], 'engines', 'a.engine'), b'')\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "models"]
    subprocess.run(command, check=True, cwd=tmp_path, preexec_fn=lambda: os.umask(0))
    made = [tmp_path / "models", *(tmp_path / "models").rglob("*")]
    assert len(made) == 3
    assert not [path for path in made if path.stat().st_mode & stat.S_IWOTH]


# --- The node -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, detector_path: Callable[[str], Path]
) -> Iterator[tuple[Any, Path]]:
    """A node with its own folders to write to, and without a umask."""
    rclpy = pytest.importorskip("rclpy")
    from harness import running_face_node

    from scrfd_ros.models.catalogue import RECOGNIZER
    from scrfd_ros.models.download import ensure_model

    models = detector_path("500m").parent
    ensure_model(load_catalogue().find("w600k_mbf", RECOGNIZER))
    folder = tmp_path_factory.mktemp("secured")
    for name in ("home", "here", "temporary", "ros", "log"):
        (folder / name).mkdir()
    started_here = not rclpy.ok()
    if started_here:
        rclpy.init()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder / "home"))
        patch.setenv("TMPDIR", str(folder / "temporary"))
        patch.setenv("ROS_HOME", str(folder / "ros"))
        patch.setenv("ROS_LOG_DIR", str(folder / "log"))
        patch.chdir(folder / "here")
        umask = os.umask(0)
        parameters = {"model_directory": models, "detector.model": "500m"}
        try:
            starting = running_face_node(folder, parameters)
            harness = starting.__enter__()
        finally:
            os.umask(umask)
        try:
            harness.wait_until_active()
            yield harness, folder
        finally:
            starting.__exit__(None, None, None)
    if started_here:
        rclpy.shutdown()


def written_files(process: int) -> set[Path]:
    """Regular files that a process has open for writing, except shared memory."""
    found = set()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            target = Path(os.readlink(descriptor))
            info = Path(f"/proc/{process}/fdinfo", descriptor.name).read_text()
        except FileNotFoundError:
            continue
        flags = int(info.split("flags:")[1].split()[0], 8)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if writes and target.is_file() and not str(target).startswith(("/dev", "/memfd")):
            found.add(target)
    return found


def listing(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def test_the_node_stores_nothing_but_its_log(
    node: tuple[Any, Path], image: Callable[[str], NDArray[np.uint8]]
) -> None:
    harness, folder = node
    models = Path(str(harness.get_parameter("model_directory")))
    before = listing(models)
    _, faces = harness.ask(image("t1.jpg"))
    assert len(faces.faces) == 6 and len(faces.faces[0].embedding) == 512
    for name in ("home", "here", "temporary", "ros"):
        assert listing(folder / name) == {}, name
    assert listing(models) == before
    log = folder / "face_node.log"  # where the harness sends what the node prints
    for path in written_files(harness.process.pid):
        assert path == log or path.is_relative_to(folder / "log"), path
    said = log.read_text() + "".join(path.read_text() for path in (folder / "log").iterdir())
    assert "waiting for images" in said
    for number in (*faces.faces[0].embedding[:3], faces.faces[0].detection.bbox.center.position.x):
        assert f"{number:.4f}" not in said


def test_the_node_makes_nothing_that_everybody_can_write(node: tuple[Any, Path]) -> None:
    harness, _ = node
    status = Path(f"/proc/{harness.process.pid}/status").read_text()
    assert int(status.split("Umask:")[1].split()[0], 8) & stat.S_IWOTH


def expressions(kind: str, verb: str) -> set[str]:
    """Full names that the policy allows face_node."""
    (profile,) = ElementTree.parse(POLICY).findall(".//profile[@node='face_node']")
    found = profile.findall(f"{kind}s[@{verb}='ALLOW']/{kind}")
    return {name if name.startswith("/") else f"/{name}" for name in map(text_of, found)}


def text_of(element: ElementTree.Element) -> str:
    assert element.text
    return element.text


GALLERY_SERVICES = {
    re.sub(r"(?<!^)(?=[A-Z])", "_", path.stem).lower() for path in (ROOT / "srv").glob("*.srv")
}

OPTIONAL = {
    "subscribe": {"/image/compressed", "/clock"},
    "publish": {"/annotations", "/humans/faces/*", "/humans/candidate_matches"},
    "reply": {
        "/face_node/get_type_description",  # none on Humble
        *(f"/face_node/{service}" for service in GALLERY_SERVICES),
    },
}


def test_the_policy_allows_what_the_node_has_and_no_more(node: tuple[Any, Path]) -> None:
    harness, _ = node
    own = harness.node
    namespace = own.get_namespace()

    def names(found: list[tuple[str, list[str]]]) -> set[str]:
        return {name.removeprefix(namespace) for name, _ in found}

    where = ("face_node", namespace)
    entities = {
        "publish": names(own.get_publisher_names_and_types_by_node(*where)),
        "subscribe": names(own.get_subscriber_names_and_types_by_node(*where)),
        "reply": names(own.get_service_names_and_types_by_node(*where)),
    }
    assert "/faces" in entities["publish"]
    for verb, there in entities.items():
        allowed = expressions("service" if verb == "reply" else "topic", verb)
        assert there <= allowed
        assert allowed - there <= OPTIONAL[verb]


def test_the_policy_has_the_form_of_sros2() -> None:
    """The schema of version 0.2.0, written here in Python: the tools of SROS 2 are not needed."""
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.attrib) == ("policy", {"version": "0.2.0"})
    (enclaves,) = root
    assert enclaves.tag == "enclaves"
    verbs = {"topics": {"publish", "subscribe"}, "services": {"reply", "request"}}
    for enclave in enclaves:
        assert enclave.tag == "enclave" and enclave.attrib.keys() == {"path"}
        assert enclave.attrib["path"].startswith("/")
        (profiles,) = enclave
        assert profiles.tag == "profiles" and not profiles.attrib
        for profile in profiles:
            assert profile.tag == "profile" and profile.attrib.keys() == {"ns", "node"}
            for group in profile:
                assert group.attrib.keys() <= verbs[group.tag]
                assert set(group.attrib.values()) == {"ALLOW"}
                assert {item.tag for item in group} == {group.tag[:-1]}
                assert all(re.fullmatch(r"/?[a-z_/]+(/\*)?", text_of(item)) for item in group)


def test_documentation_says_where_the_policy_is() -> None:
    text = (ROOT / "docs" / "security.md").read_text("utf-8")
    assert "config/sros2/policy.xml" in text
