# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with PostgreSQL servers, in sentences that say what to do.

The text of libpq and of the server is not passed on where it may hold passwords or names.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from scrfd_ros.errors import GalleryAwayError, GalleryError, NoGalleryError

_FORM = "postgresql://USER@HOST:PORT/DATABASE"


# Parts of the text of libpq, the server or a pooler, and what to say.
_MISTAKES = {
    "password authentication failed": "the password of {user} is wrong",
    "no password supplied": "it wants a password: write it into ~/.pgpass, or after the user, as "
    "USER:PASSWORD@HOST",
    r'role ".*" does not exist': "it knows no user {user}",
    r"pg_hba\.conf": "it does not let {user} in from here, or not without TLS: see its "
    "pg_hba.conf, or add ?sslmode=require to the URL",
    "does not support SSL": "it has no TLS, which sslmode in the URL asks for: set it up there, or "
    "leave that out",
    "certificate": "its certificate was not accepted: see sslmode and sslrootcert in PostgreSQL's "
    "manual",
    "definition of service": "there is no such service in ~/.pg_service.conf",
    "invalid port number": "ports are numbers up to 65535",
    r"invalid \w+ value|bad value": "an option after the ? of its URL is not valid",
    "unsupported startup parameter": "the pooler does not take an option of the URL",
}
_NO_DATABASE = r'database ".*" does not exist|no such database'
_AWAY = {
    "host name|resolve host|Name or service|name resolution": "its name is unknown, or the network "
    "is down",
    "Connection refused|No such file": "no server listens there",
    "No route to host|Network is unreachable": "the network does not reach it",
    "timeout": "no answer",
    "starting up|not yet accepting": "it is just starting",
    "shutting down|administrator command": "it was stopped",
    "recovery mode": "it is just recovering",
    "too many|connection slots": "it has too many clients: raise max_connections there",
    "read-only": "it can only be read, as a standby: name the main server",
}
_OF_CONNECTIONS = ("", "08", "57")  # classes of SQL states; psycopg gives none when it connects
_GONE = ("42P01", "3F000", "3D000")
_STATES = {
    "40001": "it collided with another change; try again",
    "40P01": "it collided with another change; try again",
    "25P03": "the change took too long and was taken back; try again",
    "25006": "it can only be read, as a standby: name the main server",
    "42501": "{user} may not do that there: grant it; to make a gallery, let the owner of the "
    "database do once: CREATE EXTENSION vector; CREATE SCHEMA scrfd_gallery AUTHORIZATION {user}",
    "0A000": "it lacks pgvector: install it there, such as with apt install postgresql-16-pgvector",
    "58P01": "it lacks pgvector: install it there, such as with apt install postgresql-16-pgvector",
    "55P03": "somebody else has been writing for long; try again",
    "53100": "its disk is full",
    "57014": "it stopped this, as it took too long: see statement_timeout there",
}


def settings(url: str) -> dict[str, Any]:
    """The parameters of a connection in a URL.

    Raises:
        GalleryError: it cannot be read.
    """
    try:
        found: dict[str, Any] = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        found = {"host": "@"}
    # What libpq makes of a password with a / or @.
    if any("@" in str(found.get(key, "")) for key in ("host", "port", "dbname")):
        raise GalleryError(
            f"the URL of the gallery is not of the form {_FORM}, or has an unknown option after "
            f"a ?; in a password, write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23, "
            f"% as %25, or put it into ~/.pgpass"
        )
    return found


def place(found: dict[str, Any]) -> str:
    """Where a server and its database are, without user and password."""
    if "service" in found:
        return f"postgresql:///?service={found['service']}"
    database = found.get("dbname", "")
    host = found.get("host") or found.get("hostaddr", "")
    if host.startswith("/"):
        return f"postgresql:///{database}?host={host}"
    ports = str(found.get("port", "")).split(",")
    pairs = zip_longest(host.split(","), ports, fillvalue="")
    return f"postgresql://{','.join(f'{a}:{b}' if b else a for a, b in pairs)}/{database}"


def failure(error: psycopg.Error, found: dict[str, Any]) -> GalleryError:
    """What an error of psycopg means."""
    user, database = found.get("user", "the user"), found.get("dbname", "of this name")
    text, state, where = str(error), error.sqlstate or "", place(found)
    if state in _GONE:
        return NoGalleryError(f"{where}: the database has no gallery any more")
    if state in _STATES:
        return GalleryError(f"{where}: {_STATES[state].format(user=user)}")
    if state[:2] not in _OF_CONNECTIONS:
        return GalleryError(f"{where}: the server refused ({type(error).__name__}, {state})")
    if re.search(_NO_DATABASE, text):
        return NoGalleryError(f"{where}: it has no database {database}; createdb makes one")
    for part, reason in _MISTAKES.items():
        if re.search(part, text):
            return GalleryError(f"{where}: {reason.format(user=user)}")
    for part, reason in _AWAY.items():
        if re.search(part, text):
            return GalleryAwayError(f"{where}: {reason}")
    return GalleryAwayError(f"{where}: there is no connection to it")
