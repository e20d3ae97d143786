"""Addresses such as ``s3://bucket/name``: told from paths, and kept apart from their credentials.

An address may carry a user with a password, and over HTTP a signed query. Both are taken off as
soon as the address is typed and stay in this module: whatever shows, logs or stores an address
after that cannot show them. They are put back where a request is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import unquote, urlsplit

from vidkd.errors import UsageError

SCHEMES = ("s3", "gs", "https", "http", "hf")
"""What an address may begin with; ``gcs`` is another name of ``gs``."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
_users: dict[str, str] = {}
_queries: dict[str, str] = {}


def address(text: str) -> str | None:
    """Return an address without its credentials, which are kept; None for what is no address.

    It may also be written as ``Path`` writes it, with one slash.

    Raises:
        UsageError: it begins with a scheme that is not in ``SCHEMES``.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        return None
    scheme = {"gcs": "gs"}.get(match[1].lower(), match[1].lower())
    host, slash, rest = match[2].partition("/")
    user, _, host = host.rpartition("@")
    if scheme not in SCHEMES:
        raise UsageError(
            f"{match[1]}://{host}{slash}{rest.partition('?')[0]} is an address of a kind that is"
            " not read",
            remedy=f"give a path, or an address with {', '.join(f'{s}://' for s in SCHEMES)}",
        )
    query = ""
    if scheme in {"http", "https"}:
        rest, _, query = rest.partition("#")[0].partition("?")
    plain = f"{scheme}://{host}{slash}{rest}".rstrip("/")
    if user:
        _users[f"{scheme}://{host}"] = user
    if query:
        _queries[plain] = query
    return plain


def without_credentials(arguments: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the words of a command line, cleaned, and what was typed by what it became.

    Raises:
        UsageError: see ``address``; or two addresses differ in their query alone.
    """
    cleaned, typed, queries = [], dict[str, str](), dict[str, str]()
    for word in arguments:
        name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        known = value.lower().startswith(tuple(f"{scheme}://" for scheme in (*SCHEMES, "gcs")))
        plain = address(value) if known else None
        if plain is not None:
            query = _queries.get(plain, "")
            if queries.setdefault(plain, query) != query:
                raise UsageError(
                    "is given twice, with other words behind the question mark",
                    path=plain,
                    remedy="run the command for each",
                )
            typed[plain] = value
        cleaned.append(word if plain is None else f"{name}{equals}{plain}")
    return cleaned, typed


def user_of(plain: str) -> tuple[str, str] | None:
    """Return user and password that were typed for the host or bucket of an address."""
    parts = urlsplit(plain)
    found = _users.get(f"{parts.scheme}://{parts.netloc}")
    if found is None:
        return None
    user, _, password = found.partition(":")
    return unquote(user), unquote(password)


def with_query(plain: str) -> str:
    """Return an address with the query that was typed for it, or for a folder above it."""
    above = plain
    while above.count("/") > 2 or above == plain:
        if above in _queries:
            return f"{plain}?{_queries[above]}"
        above = above.rpartition("/")[0]
    return plain


def credentials(plain: str) -> dict[str, str]:
    """Return what another process needs to reach an address; see ``remember``."""
    parts = urlsplit(plain)
    host = f"{parts.scheme}://{parts.netloc}"
    kept = {f"user {host}": _users[host]} if host in _users else {}
    kept |= {f"query {key}": _queries[key] for key in _queries if plain.startswith(key)}
    return kept


def remember(kept: Mapping[str, str]) -> None:
    """Keep the credentials of another process."""
    for name, value in kept.items():
        kind, _, key = name.partition(" ")
        (_users if kind == "user" else _queries)[key] = value


def scrub(text: str) -> str:
    """Replace in a text all credentials that were typed."""
    secrets = set(_queries.values())
    for user in _users.values():
        password = user.partition(":")[2]
        secrets |= {user, password, unquote(password)}
    for query in _queries.values():
        values = (pair.partition("=")[2] for pair in query.split("&"))
        secrets |= {form for value in values for form in (value, unquote(value)) if len(value) > 7}
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
