# SPDX-License-Identifier: Apache-2.0
"""Writers of a gallery that are killed at random moments, and what they leave.

A child process enrolls, merges, forgets and so on, and tells in a pipe what it begins and what has
returned. It is killed. The gallery then has to be as it was after all that has returned, or with
what was begun as a whole.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from galleries import INFO, looks

from scrfd_ros.gallery.gallery import Gallery
from scrfd_ros.gallery.opening import open_gallery, open_store
from scrfd_ros.gallery.people import Look

LONGEST = 0.08  # seconds from the first change to the kill
_LOOKS = 3  # at most, at a person

Change = dict[str, Any]  # what to do, and with whom
State = dict[str, tuple[str, frozenset[bytes]]]
"""By name: who the person is merged into, and the embeddings of the templates."""


def looks_of(number: int, count: int) -> list[Look]:
    return looks(number, _LOOKS)[:count]


def next_change(random: Random, state: State, number: int) -> Change:
    """Something that can be done, so that there are some people, but not more and more."""
    people = sorted(state)
    own = [name for name in people if not state[name][0]]
    merged = [name for name in people if state[name][0]]
    if len(own) < 3 or random.random() < 0.35:
        return {"do": "enroll", "name": f"Person {number:06}", "count": random.randint(1, _LOOKS)}
    kinds = ["forget"] * (3 if len(people) > 12 else 1) + ["merge"] * 2 + ["rename"]
    kind = random.choice(kinds + ["split"] * bool(merged))
    if kind == "split":
        return {"do": kind, "name": random.choice(merged)}
    if kind == "rename":
        return {"do": kind, "name": random.choice(people), "to": f"Renamed {number:06}"}
    name, other = random.sample(own, 2)
    return {"do": kind, "name": name} | ({"to": other} if kind == "merge" else {})


def make(gallery: Gallery, change: Change, number: int) -> None:
    name = change["name"]
    if change["do"] == "enroll":
        gallery.enroll(name, looks_of(number, change["count"]), source="")
    elif change["do"] == "forget":
        gallery.forget(name)
    elif change["do"] == "split":
        gallery.split(name)
    elif change["do"] == "merge":
        gallery.merge(name, change["to"])
    else:
        gallery.rename(name, change["to"])


def after(state: State, change: Change, number: int) -> State:
    """What a change has to make of a state."""
    state, name = dict(state), change["name"]
    if change["do"] == "enroll":
        pieces = [look.embedding.tobytes() for look in looks_of(number, change["count"])]
        state[name] = ("", frozenset(pieces))
    elif change["do"] == "split":
        state[name] = ("", state[name][1])
    elif change["do"] == "merge":
        state[name] = (change["to"], state[name][1])
    elif change["do"] == "rename":
        state[change["to"]] = state.pop(name)
        for each, (into, pieces_of) in state.items():
            if into == name:
                state[each] = (change["to"], pieces_of)
    else:
        gone = {name}
        while more := {each for each, (into, _) in state.items() if into in gone} - gone:
            gone |= more
        state = {each: value for each, value in state.items() if each not in gone}
    return state


def stored(place: str) -> State:
    """What is in a gallery."""
    store = open_store(place, None)
    with closing(store):
        everybody = list(store.export())
    names = {person.id: person.name for person, _ in everybody}
    return {
        person.name: (
            names.get(person.merged_into, ""),
            frozenset(each.embedding.tobytes() for each in templates),
        )
        for person, templates in everybody
    }


def _pieces(state: State) -> set[bytes]:
    """Bytes by which names and embeddings are found."""
    embeddings = {each[512:576] for _, templates in state.values() for each in templates}
    return embeddings | {name.encode() for name in state}


class Kills:
    """Rounds of changes that end with a kill.

    Args:
        place: file or URL of the gallery, which is new.

    Attributes:
        moments: how many kills there were in which kind of change; "" for between two, and
            "opening" for while the gallery was opened.
        changes: how many changes returned.
    """

    def __init__(self, place: str, seed: int = 0) -> None:
        self._place = place
        self._random = Random(seed)
        self._state: State = {}
        self._forgotten: list[set[bytes]] = []
        self._number = 0
        self.moments: Counter[str] = Counter()
        self.changes = 0
        open_gallery(place, INFO).close()

    def round(self) -> None:
        """Let a child change the gallery, kill it, and check what it left.

        Raises:
            AssertionError: something is lost, half done, or still there.
        """
        is_early = self._random.random() < 0.2
        delay = self._random.uniform(0, LONGEST / 4 if is_early else LONGEST)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(reader)
                self._write(lambda entry: os.write(writer, json.dumps(entry).encode() + b"\n"))
            finally:
                os._exit(1)
        os.close(writer)
        if not is_early:  # else the gallery may still be opened
            select.select([reader], [], [], 60)
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "the child ended by an error of its own"
        with os.fdopen(reader, "rb") as stream:
            entries = [json.loads(line) for line in stream.read().splitlines()]
        self._check(entries)

    def _write(self, tell: Callable[[Change], object]) -> None:
        state, number = self._state, self._number
        random = Random(number)
        with open_gallery(self._place) as gallery:
            while True:
                number += 1
                change = next_change(random, state, number)
                tell(change)
                make(gallery, change, number)
                tell({})
                state = after(state, change, number)

    def _check(self, entries: Sequence[Change]) -> None:
        states = [self._state]
        for change in entries:
            if change:
                self._number += 1
                states.append(after(states[-1], change, self._number))
        is_pending = bool(entries and entries[-1])
        self.changes += len(states) - 1 - is_pending
        self.moments[entries[-1]["do"] if is_pending else "" if entries else "opening"] += 1
        found = stored(self._place)
        allowed = states[-2:] if is_pending else states[-1:]
        assert found in allowed, f"not as after {entries[-2:]}"
        known = set[bytes]().union(*map(_pieces, states))
        self._forgotten.append(known - _pieces(found))
        self._state = found
        self._number += 1
        if "://" not in self._place:
            self.check_file(rounds=5)

    def check_file(self, rounds: int) -> None:
        """Check the file of the gallery, and that who was forgotten in the last rounds is gone.

        Raises:
            AssertionError: it is damaged, or names or embeddings are still there.
        """
        path = Path(self._place)
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        content = b"".join(each.read_bytes() for each in path.parent.glob(path.name + "*"))
        for pieces in self._forgotten[-rounds:]:
            assert not any(piece in content for piece in pieces), "bytes of a forgotten person"
