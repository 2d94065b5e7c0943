# SPDX-License-Identifier: Apache-2.0
"""Galleries in files: what the file system and other processes may do to them."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from faulty_processes import open_to_all
from galleries import INFO, looks

from scrfd_ros.errors import GalleryError, NoGalleryError
from scrfd_ros.gallery import sqlite
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import Person
from scrfd_ros.gallery.sql import TABLES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "people.db"


@pytest.fixture
def gallery(path: Path) -> Iterator[Gallery]:
    with open_gallery(str(path), INFO) as gallery:
        gallery.enroll("Anna", looks(1), source="")
        yield gallery


def python(code: str, *arguments: object) -> str:
    """Run code in another process; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_only_the_owner_can_read_the_files(path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with open_gallery(str(path), INFO) as gallery:
            gallery.enroll("Anna", looks(1), source="")
            found = {
                each.name: stat.S_IMODE(each.stat().st_mode)
                for each in path.parent.iterdir()
                if each.name.startswith("people")
            }
            assert found == dict.fromkeys(("people.db", "people.db-wal", "people.db-shm"), 0o600)
            assert gallery.state == ""
    finally:
        os.umask(before)


def test_a_file_that_others_can_read_is_told(gallery: Gallery, path: Path) -> None:
    path.chmod(0o640)
    assert "other users" in gallery.state and "chmod 600" in gallery.state
    assert gallery.template_count == 3


def _text(path: Path) -> None:
    path.write_text("Anna, Bert, Carl\n" * 100)


def _other_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")


def _later_format(path: Path) -> None:
    open_gallery(str(path), INFO).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")


def _half_made(path: Path) -> None:
    open_gallery(str(path), INFO).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE templates")


def _no_entry(path: Path) -> None:
    open_gallery(str(path), INFO).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DELETE FROM gallery")


def _cut_off(path: Path) -> None:
    with open_gallery(str(path), INFO) as gallery:
        for person in range(5):
            gallery.enroll(f"Anna {person}", looks(person), source="")
    os.truncate(path, path.stat().st_size // 2)


def _circle(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_text, "it is not a gallery"),
        (Path.mkdir, "it is a folder"),
        (os.mkfifo, "not a regular file"),
        (_circle, "cannot open the gallery"),
        (_other_database, "database of another program"),
        (_later_format, "later version of scrfd_ros"),
        (_half_made, "damaged"),
        (_no_entry, "damaged"),
        (_cut_off, "damaged"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_is_not_a_gallery_is_refused_and_stays(
    path: Path, make: Callable[[Path], object], words: str
) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    for info in (INFO, None):
        with pytest.raises(GalleryError, match=words) as refused:
            open_gallery(str(path), info)
        assert str(path) in str(refused.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_paths_that_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GalleryError, match="kept in a file"):
        open_gallery(":memory:", INFO)
    (tmp_path / "text").write_text("")
    with pytest.raises(GalleryError, match="text/people"):
        open_gallery("text/people.db", INFO)
    with pytest.raises(NoGalleryError, match="there is no gallery"):
        open_gallery("people.db")
    assert not (tmp_path / "people.db").exists()
    with open_gallery("./file:people?mode=memory", INFO) as gallery:  # a name as any other
        gallery.enroll("Anna", looks(1), source="")
    with open_gallery("./file:people?mode=memory") as gallery:
        assert gallery.template_count == 3


def test_what_a_crash_left_of_a_new_gallery_is_made_anew(path: Path) -> None:
    path.write_bytes(b"")
    with pytest.raises(NoGalleryError, match="the file is empty"):
        open_gallery(str(path))
    with closing(sqlite3.connect(path)) as connection:  # after this the tables would have come
        connection.execute("PRAGMA journal_mode = WAL")
    assert path.stat().st_size > 0
    with open_gallery(str(path), INFO) as gallery:
        gallery.enroll("Anna", looks(1), source="")


def test_a_link_leads_to_the_file(gallery: Gallery, path: Path) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    with open_gallery(str(link)) as other:
        assert other.people == gallery.people
        assert not list(path.parent.glob("link.db-*"))


def test_network_shares_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share = sqlite._Mount("/share", path.parent.stat().st_dev, "nfs4")
    monkeypatch.setattr(sqlite, "_mounts", lambda: [share])
    with pytest.raises(GalleryError, match=r"network share \(nfs4\).*PostgreSQL"):
        open_gallery(str(path), INFO)


def test_mounts_are_known() -> None:
    (mount, *_) = [mount for mount in sqlite._mounts() if mount.point == "/proc"]
    assert mount == ("/proc", Path("/proc").stat().st_dev, "proc")


def test_a_file_that_is_mounted_without_its_folder_is_refused(
    gallery: Gallery, tmp_path: Path
) -> None:
    """As by `docker run -v people.db:/people.db`, with which others' changes would be lost."""
    inside = tmp_path / "in side" / "people.db"
    inside.parent.mkdir()
    inside.touch()
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*namespace, "true"]).returncode:
        pytest.skip("this machine lets no process mount anything")
    mount = shlex.join(["mount", "--bind", str(tmp_path / "people.db"), str(inside)])
    open_it = shlex.join(["scrfd", "gallery", "list", "--gallery", str(inside)])
    done = subprocess.run(
        [*namespace, "sh", "-c", f"{mount} && {open_it}"], capture_output=True, text=True
    )
    assert done.returncode == 2 and "mount its folder" in done.stderr
    assert os.listdir(inside.parent) == ["people.db"]


@pytest.mark.parametrize("change", ["removed", "replaced"])
def test_a_file_that_was_removed_or_replaced_is_told(
    gallery: Gallery, path: Path, change: str
) -> None:
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    path.unlink()
    if change == "replaced":
        copy.rename(path)
    assert "removed or replaced" in gallery.state
    with pytest.raises(GalleryError, match="removed or replaced"):
        gallery.enroll("Bert", looks(2), source="")
    assert gallery.nearest(looks(1)[0].embedding)[0].similarity > 0.9  # from memory


def test_another_writer_is_waited_for(
    gallery: Gallery, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.5, other.execute, ["COMMIT"])
        timer.start()
        gallery.enroll("Bert", looks(2), source="")
        timer.join()
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(sqlite, "_TIMEOUT", 0.1)
        with pytest.raises(GalleryError, match="another process has kept it busy"):
            gallery.enroll("Carl", looks(3), source="")
    assert [each.name for each in gallery.people] == ["Anna", "Bert"]


def test_a_full_disk_changes_nothing(
    gallery: Gallery, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_PRAGMAS", (*sqlite._PRAGMAS, "max_page_count = 1"))
    with pytest.raises(GalleryError, match="the disk is full; nothing was changed"):
        for person in range(9):
            gallery.enroll("Bert", looks(person), source="")
    monkeypatch.undo()
    with open_gallery(str(path)) as other:
        assert other.template_counts() == gallery.template_counts()


def test_a_file_limit_changes_nothing(path: Path) -> None:
    """Writing fails in the middle, as on a disk that gets full."""
    code = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from faulty_processes import open_to_all
from galleries import INFO, looks
from scrfd_ros.gallery.opening import open_gallery
with open_gallery(sys.argv[1], INFO) as gallery:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        for person in range(99):
            gallery.enroll(str(person), looks(person), source="")
            print(person)
    except Exception as error:
        print(type(error).__name__, error)
"""
    *enrolled, last = python(code, path, Path(__file__).parents[1]).splitlines()
    assert last.startswith("GalleryError") and ("disk" in last), last
    with open_gallery(str(path)) as gallery:
        assert {each.name for each in gallery.people} == set(enrolled) != set()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user, as root can")
def test_a_file_or_folder_that_cannot_be_written(gallery: Gallery, path: Path) -> None:
    code = """
import os, sys
sys.path.insert(0, sys.argv[2])
from faulty_processes import open_to_all
from galleries import INFO, looks
import scrfd_ros.gallery.opening as opening
os.setegid(65534), os.seteuid(65534)
try:
    with opening.open_gallery(sys.argv[1], INFO) as gallery:
        print(len(gallery.people))
        gallery.enroll("Bert", looks(2), source="")
except Exception as error:
    print(type(error).__name__, error)
"""
    gallery.close()
    open_to_all(path.parent)
    tests = Path(__file__).parents[1]
    assert "GalleryError" in python(code, path, tests)  # 0600, of root
    path.chmod(0o644)
    assert "writable for this user" in python(code, path, tests)
    assert "cannot open the gallery: Permission denied" in python(
        code, path.with_name("new.db"), tests
    )


def test_a_reader_that_keeps_the_log_from_being_emptied_is_told(
    gallery: Gallery, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "_TIMEOUT", 0.1)
    (piece,) = (look.embedding.tobytes()[:64] for look in looks(1, 1))
    wal = path.with_name("people.db-wal")

    def in_log() -> bool:
        content = subprocess.run(["cat", wal], capture_output=True, check=True).stdout
        return piece in content

    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM people").fetchone()
        with pytest.raises(GalleryError, match=r"its bytes are still in .*people\.db-wal"):
            gallery.forget("Anna")
        assert "people.db-wal" in gallery.state
        assert not gallery.people
        assert in_log()
        size = path.with_name("people.db-wal").stat().st_size
        gallery.follow()
        time.sleep(1)
        assert path.with_name("people.db-wal").stat().st_size == size  # it does not grow meanwhile
    start = time.monotonic()
    while gallery.state and time.monotonic() - start < 5:
        time.sleep(0.05)
    assert gallery.state == "" and not in_log()


def test_what_a_killed_process_left_in_the_log_goes_when_the_gallery_is_opened(
    gallery: Gallery, path: Path
) -> None:
    """It was killed between the end of the transaction and the emptying of the log."""
    code = """
import os, sys
from pathlib import Path
from random import Random
from scrfd_ros.gallery.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]), None)
store._wipe = lambda: os._exit(0)
store.forget([sys.argv[2]])
"""
    (anna,) = gallery.people
    python(code, path, anna.id)
    wal = path.with_name("people.db-wal")
    assert wal.stat().st_size > 0
    with open_gallery(str(path)) as other:
        assert not other.people
        assert wal.stat().st_size == 0


def test_many_may_make_a_gallery_at_once(tmp_path: Path) -> None:
    """SQLite does not wait for another connection that changes the journal mode."""
    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            start = threading.Barrier(8)

            def made(path: Path, start: threading.Barrier = start) -> str:
                start.wait()
                with open_gallery(str(path), INFO) as gallery:
                    return gallery.state

            assert set(pool.map(made, [tmp_path / f"{number}.db"] * 8)) == {""}


def test_two_processes_lose_no_update(path: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[3])
from faulty_processes import open_to_all
from galleries import INFO, looks
from scrfd_ros.gallery.opening import open_gallery
with open_gallery(sys.argv[1], INFO) as gallery:
    for i in range(15):
        gallery.enroll(f"{sys.argv[2]} {i}", looks(i, 1), source="")
        gallery.enroll("both", looks(i, 1), source=sys.argv[2])
        if i % 2:
            gallery.rename(f"{sys.argv[2]} {i}", f"{sys.argv[2]} {i} again")
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, path, name, Path(__file__).parents[1]])
        for name in ("left", "right")
    ]
    assert [each.wait() for each in processes] == [0, 0]
    with open_gallery(str(path)) as gallery:
        names = {each.name for each in gallery.people}
        assert names == {"both"} | {
            f"{side} {i}{' again' if i % 2 else ''}"
            for side in ("left", "right")
            for i in range(15)
        }
        counts = gallery.template_counts()
        assert counts.pop(gallery.find("both").id) == 30
        assert set(counts.values()) == {1}


def test_threads_of_one_process_lose_no_update(gallery: Gallery) -> None:
    def enroll(side: str) -> None:
        for i in range(10):
            gallery.enroll(f"{side} {i}", looks(i, 1), source="")

    threads = [threading.Thread(target=enroll, args=[side]) for side in "abc"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(gallery.people) == 31 and gallery.template_count == 33


def test_the_header_of_the_file_says_what_it_is(gallery: Gallery, path: Path) -> None:
    gallery.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (sqlite.APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (sqlite.FORMAT,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        made = connection.execute("SELECT count(*) FROM sqlite_master WHERE sql NOT NULL")
        assert made.fetchone() == (len(TABLES),)


def test_nothing_forgotten_stays_between_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite leaves copies of rows that it moved; large pages, on which many are, show it."""
    faster = [each for each in sqlite._PRAGMAS if "synchronous" not in each]
    monkeypatch.setattr(sqlite, "_PRAGMAS", ("page_size = 16384", "synchronous = OFF", *faster))
    store = sqlite.SqliteStore(path, INFO)
    random = Random(4)

    def name() -> str:
        return random.randbytes(random.randint(10, 95)).hex()

    def forgotten_names() -> int:
        content = b"".join(
            subprocess.run(["cat", each], capture_output=True, check=True).stdout
            for each in path.parent.glob("people.db*")
        )
        return sum(each.encode() in content for each in forgotten)

    live: dict[str, str] = {}
    forgotten: list[str] = []
    wipe = store._wipe
    monkeypatch.setattr(store, "_wipe", lambda: None)
    for _ in range(25):
        people = [Person(str(uuid.UUID(int=random.getrandbits(128))), name()) for _ in range(80)]
        for begin in range(0, 80, 4):
            store.add(people[begin : begin + 4], [])
        live |= {each.id: each.name for each in people}
        for each in random.sample(sorted(live), 20):
            forgotten.append(live[each])
            live[each] = name()
            store.rename(each, live[each])
        gone = random.sample(sorted(live), 50)
        store.forget(gone)
        forgotten += [live.pop(each) for each in gone]
    with closing(store._connect()) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    left = forgotten_names()
    wipe()
    assert forgotten_names() == 0
    store.close()
    if not left:
        pytest.skip("this version of SQLite leaves none of these")
