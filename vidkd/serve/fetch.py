"""Videos from addresses that strangers name, without being led to what only this machine sees.

Every address that a name stands for has to be public, the connection goes to the very address that
was checked, and each redirect is checked anew. No proxy, no cookie and no password is used.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable
from typing import IO
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

_TIMEOUT = 20.0
_REDIRECTS = 5
_PIECE = 1 << 18
_SAFE = "%/:@!$&'()*+,;=~-._?[]"
_EMBEDDING = tuple(
    # Addresses that lead on to an IPv4 address: NAT64, 6to4, Teredo.
    ipaddress.ip_network(text)
    for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)


class FetchError(Exception):
    """An address that is refused, or does not give a video; the message is for its sender."""


def check_url(url: str) -> SplitResult:
    """Return the parts of an address.

    Raises:
        FetchError: it is not one of http or https, or has a name and password.
    """
    try:
        parts = urlsplit(quote(url.strip(), safe=_SAFE))
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or len(url) > 4000:
        raise FetchError("this is no address of http or https")
    if parts.username is not None:
        raise FetchError("an address with a name or password is not taken")
    return parts


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if any(found in network for network in _EMBEDDING):
            return False
    return found.is_global and not found.is_multicast


def fetch(
    url: str,
    stream: IO[bytes],
    *,
    largest: int,
    seconds: float,
    private: bool,
    stopped: Callable[[], bool],
) -> int:
    """Write what an address gives to a file, and return its bytes.

    Args:
        url: the address.
        stream: where it goes.
        largest: bytes.
        seconds: for all of it.
        private: take addresses that are not public too.
        stopped: whether nobody wants it any more.

    Raises:
        FetchError: it cannot be fetched.
        OSError: the disk is full.
    """
    deadline = time.monotonic() + seconds
    for _ in range(_REDIRECTS + 1):
        parts = check_url(url)
        connection = _connect(parts, private)
        try:
            path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            try:
                headers = {"Accept": "video/*,*/*;q=0.5", "User-Agent": "vidkd"}
                connection.request("GET", path, headers=headers)
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise FetchError("the address does not answer as HTTP should") from error
            if answer.status in {301, 302, 303, 307, 308} and (
                there := answer.getheader("Location")
            ):
                url = urljoin(url, there)
                continue
            if answer.status != 200:
                raise FetchError(f"the address answers with {answer.status}")
            return _read(answer, stream, largest, deadline, stopped)
        finally:
            connection.close()
    raise FetchError("the address redirects too often")


def _read(
    answer: http.client.HTTPResponse,
    stream: IO[bytes],
    largest: int,
    deadline: float,
    stopped: Callable[[], bool],
) -> int:
    promised = answer.length
    received = 0
    while True:
        if stopped():
            raise FetchError("it was stopped")
        if time.monotonic() > deadline:
            raise FetchError("the address is too slow")
        if max(received, promised or 0) > largest:
            raise FetchError(f"the video has more than {largest / 1e6:g} MB")
        try:
            piece = answer.read1(_PIECE)
        except (OSError, http.client.HTTPException) as error:
            raise FetchError("the address broke off") from error
        if not piece:
            break
        received += len(piece)
        stream.write(piece)
    if not received or (promised is not None and received < promised):
        raise FetchError("the address broke off" if received else "the address gives nothing")
    return received


def _connect(parts: SplitResult, private: bool) -> http.client.HTTPConnection:
    """Return a connection to an address of this name that may be asked."""
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise FetchError("there is no host of this name") from error
    addresses = [str(item[4][0]) for item in found]
    if not private and not all(map(is_public, addresses)):
        raise FetchError("the address is not of the public internet")
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(host, port, timeout=_TIMEOUT)
    for address in dict.fromkeys(addresses):
        try:
            own = socket.create_connection((address, port), timeout=_TIMEOUT)
            if secure:
                own = ssl.create_default_context().wrap_socket(own, server_hostname=host)
        except (OSError, ValueError):
            continue
        connection.sock = own
        return connection
    raise FetchError("the address does not answer")


def last_part(url: str) -> str:
    """Return the last part of the path of an address, which is what its video is called."""
    name = unquote(urlsplit(url).path).rstrip("/").rpartition("/")[2]
    return re.sub(r"[\x00-\x1f]", "", name)
