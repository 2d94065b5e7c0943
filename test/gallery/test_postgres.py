# SPDX-License-Identifier: Apache-2.0
"""Galleries on a PostgreSQL server: many robots, and a server that goes away and comes back."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from galleries import INFO, looks
from postgres_server import PostgresServer, missing

from scrfd_ros.errors import GalleryAwayError, GalleryError
from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.opening import open_gallery
from scrfd_ros.gallery.people import Person

if missing():
    pytest.skip(missing(), allow_module_level=True)

from scrfd_ros.gallery import postgres


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    """An empty database."""
    return new_database()


def until(condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """Seconds until a condition holds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, "it did not happen"
        time.sleep(0.01)
    return time.monotonic() - start


def names(gallery: Gallery) -> list[str]:
    return [each.name for each in gallery.people]


def database(url: str) -> str:
    return url.rpartition("/")[2]


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_robot_goes_on_without_its_server_and_catches_up(
    server: PostgresServer, url: str, end: str
) -> None:
    with open_gallery(url, INFO) as robot:
        for index, name in enumerate(("Anna", "Bert")):
            robot.enroll(name, looks(index), source="")
        robot.follow()
        getattr(server, end)()
        until(lambda: "recognized from memory" in robot.state)
        assert re.match(rf"postgresql://127.0.0.1:{server.port}/test_\w+: .* since ", robot.state)
        assert robot.is_away
        assert robot.nearest(looks(0)[0].embedding)[0].person_id == robot.find("Anna").id
        with pytest.raises(GalleryError, match=f"{database(url)}: no server listens there"):
            robot.enroll("Carl", looks(2), source="")
        assert names(robot) == ["Anna", "Bert"]
        server.start()
        with open_gallery(url) as other:  # before the robot may be back
            other.forget("Anna")
            other.enroll("Dora", looks(3), source="")
        until(lambda: names(robot) == ["Bert", "Dora"])
        until(lambda: robot.state == "")
        robot.enroll("Carl", looks(2), source="")
        assert robot.template_count == 9


def test_a_robot_that_starts_before_its_server(server: PostgresServer, url: str) -> None:
    with open_gallery(url, INFO) as other:
        other.enroll("Anna", looks(1), source="")
    server.stop()
    try:
        with pytest.raises(GalleryAwayError, match="no server listens there"):
            open_gallery(url, INFO)
        robots = [
            open_gallery(url, info, waits=True)
            for info in (INFO, INFO._replace(recognizer="other", recognizer_sha256="1" * 64))
        ]
        for robot in robots:
            robot.follow()
            assert re.search("no server listens there.* nobody is known", robot.state)
            assert robot.people == []
            with pytest.raises(GalleryAwayError):
                robot.enroll("Bert", looks(2), source="")
    finally:
        server.start()
    until(lambda: names(robots[0]) == ["Anna"] and robots[0].state == "")
    until(lambda: "for the recognizer w600k_mbf, not for other" in robots[1].state)
    assert robots[1].people == []
    for robot in robots:
        robot.close()


def test_a_server_that_ends_while_it_confirms_a_change(server: PostgresServer, url: str) -> None:
    with open_gallery(url, INFO) as robot:
        server.sql(  # a change takes a second to confirm
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN PERFORM pg_sleep(1); RETURN NULL; END$$;"
            "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON scrfd_gallery.people"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slow()",
            database(url),
        )
        killer = threading.Timer(0.5, server.kill)
        killer.start()
        try:
            with pytest.raises(GalleryAwayError, match="look whether it was made"):
                robot._store.add([Person("1", "Anna")], [])
        finally:
            killer.join()
            server.start()
        robot.refresh()
        assert robot.people == []


def test_a_server_that_hangs(
    server: PostgresServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stays, and nothing answers: as with a cable that was pulled out."""
    with open_gallery(url, INFO) as robot:
        robot.enroll("Anna", looks(1), source="")
        monkeypatch.setattr(postgres, "_ANSWER", 1.0)
        monkeypatch.setattr(postgres, "_CONNECT", 2)
        robot.follow()
        server.pause()
        try:
            start = time.monotonic()
            with pytest.raises(GalleryError, match=r"there is no connection|no answer"):
                robot.rename("Anna", "Anne")
            assert robot.nearest(looks(1)[0].embedding)
            until(lambda: "recognized from memory" in robot.state)
            assert time.monotonic() - start < 8
        finally:
            server.resume()
        until(lambda: robot.state == "")
        robot.rename("Anna", "Anne")


def test_an_older_backup_is_restored(server: PostgresServer, url: str) -> None:
    """What came after it is gone, though there are other decisions under the same numbers."""
    with open_gallery(url, INFO) as robot:
        robot.enroll("Anna", looks(1), source="")
        dump = server.dump(database(url))
        robot.enroll("Bert", looks(2), source="")
        robot.follow()
        server.sql(f"DROP DATABASE {database(url)} WITH (FORCE)")
        until(lambda: names(robot) == [])
        until(lambda: "has no database" in robot.state)
        server.sql(f"CREATE DATABASE {database(url)}")
        server.restore(dump, database(url))
        with open_gallery(url) as other:
            other.enroll("Carl", looks(3), source="")
        until(lambda: names(robot) == ["Anna", "Carl"])
        until(lambda: robot.state == "")
        assert robot.template_count == 6


@pytest.mark.parametrize(
    ("statements", "left"),
    [
        ("TRUNCATE people, templates", []),
        ("TRUNCATE gallery, people, templates, decisions", []),
        ("DROP SCHEMA scrfd_gallery CASCADE", []),
        (
            "DELETE FROM templates WHERE person_id IN (SELECT id FROM people WHERE name = 'Anna');"
            "DELETE FROM people WHERE name = 'Anna'",
            ["Bert"],
        ),
        ("UPDATE people SET name = 'Anne' WHERE name = 'Anna'", ["Anne", "Bert"]),
    ],
)
def test_changes_by_hand_reach_every_robot(
    server: PostgresServer, url: str, statements: str, left: list[str]
) -> None:
    with open_gallery(url, INFO) as robot:
        robot.enroll("Anna", looks(1), source="")
        robot.enroll("Bert", looks(2), source="")
        robot.follow()
        time.sleep(0.3)
        server.sql(f"SET search_path = scrfd_gallery; {statements}", database(url))
        assert until(lambda: names(robot) == left) < 2
        assert robot.template_count == 3 * len(left)
        assert robot.forgotten == 2 - len(left)


def test_many_robots_lose_nothing(server: PostgresServer, url: str) -> None:
    """They start at once, on an empty database, and all enroll, merge and forget."""
    robots, rounds = 10, 4
    failures: list[BaseException] = []
    galleries: list[Gallery] = []
    start = threading.Barrier(robots)

    def robot(number: int) -> None:
        try:
            start.wait()
            gallery = open_gallery(url, INFO)
            galleries.append(gallery)
            gallery.follow()
            for index in range(rounds):
                mine = f"{number} {index}"
                gallery.enroll(mine, looks(number, 1), source="")
                gallery.enroll("everybody's", looks(number, 1), source="")
                if index:
                    gallery.merge(f"{number} {index - 1}", mine)
            gallery.forget(mine)
            gallery.enroll(f"{number} stays", looks(number, 1), source="")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=robot, args=(number,)) for number in range(robots)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    left = sorted([f"{number} stays" for number in range(robots)] + ["everybody's"])
    for gallery in galleries:
        until(lambda gallery=gallery: sorted(names(gallery)) == left)
        assert gallery.template_count == robots * (rounds + 1)
        gallery.close()
    revision = server.sql("SELECT revision FROM scrfd_gallery.gallery", database(url))
    assert int(revision) == robots * (3 * rounds - 1 + 2)


def test_who_is_forgotten_is_in_no_file_of_the_server(server: PostgresServer, url: str) -> None:
    """Except in the write-ahead log, until the server removes that."""
    crop = np.random.default_rng(1).integers(0, 256, (112, 112, 3), np.uint8)
    with open_gallery(url, INFO) as robot:
        robot.enroll(
            "Zacharias Quux",
            [each._replace(crop=crop) for each in looks(1)],
            source="quux-at-the-door.jpg",
            consent="quux said yes",
        )
        for index in range(2, 30):
            robot.enroll(str(index), looks(index), source="")
        with pytest.raises(GalleryError, match="another person has this name"):
            robot.rename("2", "Zacharias Quux")
        template = robot.templates_of(robot.find("Zacharias Quux"))[0]
        secrets = (
            b"Zacharias Quux",
            b"quux-at-the-door.jpg",
            b"quux said yes",
            template.embedding[100:120].astype("<f4").tobytes(),
            template.image[1000:1020],
        )

        def found() -> set[tuple[str, int]]:
            """The folders or files that have secrets, and which."""
            files = [each for each in server.data.rglob("*") if each.is_file()]
            texts = [(each.relative_to(server.data).parts[0], each.read_bytes()) for each in files]
            texts.append(("log", server.log.read_bytes()))
            return {
                (where, index)
                for where, text in texts
                for index, secret in enumerate(secrets)
                if secret in text
            }

        server.sql(
            "ANALYZE scrfd_gallery.people, scrfd_gallery.templates; CHECKPOINT", database(url)
        )
        everywhere = {(where, index) for where in ("base", "pg_wal") for index in range(5)}
        assert found() == everywhere
        robot.forget("Zacharias Quux")
        assert {where for where, _ in found()} == {"pg_wal"}
        server.sql("SELECT pg_switch_wal()")
        server.sql("CHECKPOINT")
        assert not found()


def test_rights_of_users(server: PostgresServer, url: str) -> None:
    """One who may only read recognizes; one who does not own the tables cannot overwrite bytes."""
    name = database(url)
    with open_gallery(url, INFO) as owner:
        owner.enroll("Anna", looks(1), source="")
    for user, rights in (("looker", "SELECT"), ("writer", "SELECT, INSERT, UPDATE, DELETE")):
        server.sql(
            f"CREATE USER {user}; GRANT USAGE ON SCHEMA scrfd_gallery TO {user};"
            f"GRANT {rights} ON ALL TABLES IN SCHEMA scrfd_gallery TO {user}",
            name,
        )
    with (
        open_gallery(server.url(name, "looker"), INFO) as looker,
        open_gallery(server.url(name, "writer")) as writer,
    ):
        looker.follow()
        assert names(looker) == ["Anna"]
        with pytest.raises(GalleryError, match="looker may not do that there: grant it"):
            looker.rename("Anna", "Anne")
        with pytest.raises(GalleryError, match=r"still in the server's files: .* VACUUM FULL"):
            writer.forget("Anna")
        assert names(writer) == []
        until(lambda: names(looker) == [])


def test_changes_are_told_at_once(url: str) -> None:
    with open_gallery(url, INFO) as robot, open_gallery(url) as other:
        robot.follow()
        took = []
        for index in range(5):
            time.sleep(0.3)
            other.enroll(str(index), looks(index, 1), source="")
            took.append(until(lambda before=index: len(robot.people) > before))
        assert np.median(took) < 0.3


def test_changes_are_seen_where_a_pooler_swallows_notifications(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The robot listens elsewhere, as when PgBouncer has given its session to somebody else."""
    with open_gallery(url, INFO) as robot, open_gallery(url) as other:
        with monkeypatch.context() as patch:
            patch.setattr(postgres, "_LISTEN", "LISTEN nothing")
            robot.follow()
            until(lambda: robot._store._listener is not None)
        other.enroll("Anna", looks(1), source="")
        assert until(lambda: names(robot) == ["Anna"]) < 1


def test_a_robot_that_hangs_while_it_writes_does_not_block_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_WRITE", re.sub("'[0-9.]+s'", "'500ms'", postgres._WRITE))
    with open_gallery(url, INFO) as robot, open_gallery(url) as other:
        with (
            pytest.raises(GalleryError, match=r"took too long|no connection"),
            robot._store._writing() as run,
        ):
            list(run("UPDATE gallery SET revision = revision + 1"))
            list(run("SELECT revision FROM gallery"))
            with pytest.raises(GalleryError, match="somebody else has been writing"):
                other.enroll("Anna", looks(1), source="")
            time.sleep(0.7)
        other.enroll("Anna", looks(1), source="")
        robot.refresh()
        assert names(robot) == ["Anna"] and robot.revision == 1


PASSWORD = "Se/cr@t"


@pytest.fixture(scope="module")
def guarded(server: PostgresServer) -> PostgresServer:
    """A server with users of all kinds."""
    server.allow("locked", "scram-sha-256")
    server.allow("barred", "reject")
    server.sql("CREATE USER locked PASSWORD 'other'")
    for user in ("barred", "weak", "reader"):
        server.sql(f"CREATE USER {user}")
    server.sql(
        "CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    for name in ("made", "standby"):
        server.sql(f"CREATE DATABASE {name}")
    server.sql("ALTER DATABASE standby SET default_transaction_read_only = on")
    open_gallery(server.url("made"), INFO).close()
    return server


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("postgresql://postgres@127.0.0.1:PORT/nothing", "it has no database nothing; createdb"),
        ("postgresql://nobody@127.0.0.1:PORT/postgres", "it knows no user nobody"),
        ("postgresql://postgres@127.0.0.1:1/postgres", "no server listens there"),
        ("postgresql:///postgres?host=/nowhere", "no server listens there"),
        ("postgresql://postgres@127.0.0.1:99999/postgres", "ports are numbers up to 65535"),
        ("postgresql://no.invalid/people", "no.invalid/people: its name is unknown, or the net"),
        ("postgresql://127.0.0.1:PORT/postgres?sslmode=require", "it has no TLS, which sslmode"),
        ("postgresql://127.0.0.1:PORT/postgres?sslmode=yes", "an option after the"),
        ("postgresql://127.0.0.1:PORT/postgres?connect_timeout=x", "an option after the"),
        ("postgresql://127.0.0.1:PORT/postgres?ssl=1", "not of the form .* unknown option"),
        (f"postgresql://u:{PASSWORD}@host/people", "in a password, write @ as %40"),
        ("postgresql://u:Se/cr@t/people", "in a password, write @ as %40"),
        ("postgresql://u:Se%zzcr@host/people", "in a password, write @ as %40"),
        ("postgresql:///?service=nothing", "no such service"),
        ("postgresql://locked:Secret@127.0.0.1:PORT/postgres", "the password of locked is wrong"),
        ("postgresql://locked@127.0.0.1:PORT/postgres", "it wants a password: .*pgpass"),
        ("postgresql://barred@127.0.0.1:PORT/postgres", "does not let barred in from here"),
        ("postgresql://weak@127.0.0.1:PORT/postgres", "weak may not do that there: .*CREATE SCH"),
        ("postgresql://weak@127.0.0.1:PORT/latin", "encoding UTF8"),
        ("postgresql://reader@127.0.0.1:PORT/made", "reader may not do that there"),
        ("postgresql://postgres@127.0.0.1:PORT/standby", "it can only be read, as a standby"),
    ],
)
def test_what_goes_wrong_is_told(guarded: PostgresServer, given: str, message: str) -> None:
    with pytest.raises(GalleryError, match=message) as caught:
        open_gallery(given.replace("PORT", str(guarded.port)), INFO)
    for secret in ("Se/cr", "cr@t", "Secret", "zzcr"):
        assert secret not in str(caught.value)
    assert str(caught.value).count("\n") == 0
