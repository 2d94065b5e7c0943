# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with PostgreSQL servers, in sentences that say what to do.

The text of libpq and of the server is not passed on where it may hold passwords or names.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from scrfd_ros.errors import GalleryError

_FORM = "postgresql://USER@HOST:PORT/DATABASE"

_CONNECTING = (
    # part of libpq's or the server's text, sentence, whether that passes by itself
    ("password authentication failed", "the password of {user} is wrong", False),
    (
        "no password supplied",
        "it wants a password: write it into ~/.pgpass, or after the user, as USER:PASSWORD@HOST",
        False,
    ),
    ("no encryption", "it wants TLS: add ?sslmode=require to the URL", False),
    ("SSL off", "it wants TLS: add ?sslmode=require to the URL", False),
    ("no pg_hba.conf entry", "it does not let {user} in from here: see its pg_hba.conf", False),
    (
        "does not support SSL",
        "it has no TLS, which sslmode in the URL asks for: set it up there, or leave that out",
        False,
    ),
    (
        "certificate",
        "its certificate was not accepted: see sslmode and sslrootcert in PostgreSQL's manual",
        False,
    ),
    ("definition of service", "there is no such service in ~/.pg_service.conf", False),
    ("invalid port number", "ports are numbers up to 65535", False),
    ("invalid", "an option after the ? of its URL is not valid", False),
    ("unsupported startup parameter", "the pooler does not take an option of the URL", False),
    ("could not translate host name", "its name is unknown, or the network is down", True),
    ("failed to resolve host", "its name is unknown, or the network is down", True),
    ("Name or service not known", "its name is unknown, or the network is down", True),
    ("name resolution", "its name is unknown, or the network is down", True),
    ("Connection refused", "no server listens there", True),
    ("No such file or directory", "no server listens there", True),
    ("No route to host", "the network does not reach it", True),
    ("Network is unreachable", "the network does not reach it", True),
    ("timeout", "no answer", True),
    ("starting up", "it is just starting", True),
    ("not yet accepting", "it is just starting", True),
    ("shutting down", "it is just stopping", True),
    ("recovery mode", "it is just recovering", True),
    ("too many clients", "it has too many clients: raise max_connections there", True),
    ("connection slots", "it has too many clients: raise max_connections there", True),
    ("too many connections", "it has too many clients: raise its limit there", True),
    ("read-only", "it can only be read, as a standby: name the main server", True),
)
_STATES = {
    "25P03": "the change took too long and was taken back; try again",
    "25006": "it can only be read, as a standby: name the main server",
    "42501": "{user} may not do that there; let the owner of the database do once: CREATE EXTENSION"
    " vector; CREATE SCHEMA scrfd_gallery AUTHORIZATION {user}",
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


def failure(error: psycopg.Error, found: dict[str, Any]) -> tuple[str, bool]:
    """What an error means, and whether the server is away: what passes by itself.

    Returns:
        A part of a sentence, to come after the place of the server.
    """
    user = found.get("user", "the user")
    state = error.sqlstate or ""
    if state == "3D000" or ("database" in str(error) and "does not exist" in str(error)):
        return f"it has no database {found.get('dbname', user)}: createdb makes one", False
    if state == "28000" or ("role" in str(error) and "does not exist" in str(error)):
        return f"it knows no user {user}", False
    if state in _STATES:
        return _STATES[state].format(user=user), False
    if state in ("42P01", "3F000", "42704"):
        return "the gallery is no longer in the database", False
    if state[:2] in ("", "08", "57"):
        for part, sentence, is_away in _CONNECTING:
            if part in str(error):
                return sentence.format(user=user), is_away
        return "there is no connection to it", True
    return f"the server refused ({type(error).__name__}, {state}): see its log", False
