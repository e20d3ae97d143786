"""Videos from the bodies of requests to disk, piece by piece."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import IO

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect, Request

SILENCE_SECONDS = 30.0
"""So long a sender may send nothing."""
SLOWEST = 16_000
"""Bytes per second, on average since the beginning, after the silence that is allowed."""
_FORM_BYTES = 64_000
"""What a form may have beside the video."""


class RefusedError(Exception):
    """A request that cannot be served.

    Args:
        status: of the answer.
        reason: what was wrong.
        pause: seconds after which to try again.
    """

    def __init__(self, status: int, reason: str, pause: int | None = None) -> None:
        self.status, self.reason, self.pause = status, reason, pause
        super().__init__(reason)


async def pieces(request: Request, largest: int) -> AsyncIterator[bytes]:
    """Yield the body of a request; what is too large, too slow or cut short is refused.

    Args:
        request: whose body was not read yet.
        largest: bytes.

    Raises:
        RefusedError: see above.
    """
    begun, received = time.monotonic(), 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                piece = await anext(stream, None)
        except TimeoutError as error:
            raise RefusedError(408, f"nothing came for {SILENCE_SECONDS:g} seconds") from error
        except ClientDisconnect as error:
            raise RefusedError(400, "the upload broke off") from error
        if piece is None:
            return
        received += len(piece)
        if received > largest:
            raise too_large(largest)
        if received < SLOWEST * (time.monotonic() - begun - SILENCE_SECONDS):
            raise RefusedError(408, f"it came more slowly than {SLOWEST // 1000} kB/s")
        yield piece


def too_large(largest: int) -> RefusedError:
    """Return the error for what has too many bytes."""
    return RefusedError(413, f"the video has more than {largest / 1e6:g} MB")


async def receive(
    request: Request, stream: IO[bytes], largest: int, named: Callable[[str], None]
) -> int:
    """Write the video of a request to a file and return its bytes.

    The body is the video itself, or a form (``multipart/form-data``) whose first file it is.

    Args:
        request: whose body was not read yet.
        stream: where the video goes.
        largest: bytes of the video.
        named: is told how a form calls it.

    Raises:
        RefusedError: the body is no such thing, is too large or too slow, or breaks off.
        OSError: the disk is full.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        found = 0
        async for piece in pieces(request, largest):
            await asyncio.to_thread(stream.write, piece)
            found += len(piece)
    else:
        form = _Form(options.get(b"boundary", b""), named)
        async for piece in pieces(request, largest + _FORM_BYTES):
            for part in form.read(piece):
                await asyncio.to_thread(stream.write, part)
            if form.found > largest:
                raise too_large(largest)
        found = form.end()
    if not found:
        raise RefusedError(400, "there is no video in the request")
    return found


class _Form:
    """The first file of a form; other fields are passed over."""

    def __init__(self, boundary: bytes, named: Callable[[str], None]) -> None:
        self.found = 0
        self._named, self._parts = named, list[bytes]()
        self._header, self._value, self._disposition = b"", b"", b""
        self._inside = self._over = self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_field,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except (FormParserError, ValueError) as error:
            raise RefusedError(400, "the form says no boundary") from error

    def read(self, piece: bytes) -> list[bytes]:
        """Return what of a piece belongs to the file."""
        self._parts.clear()
        try:
            self._parser.write(piece)
        except FormParserError as error:
            raise RefusedError(400, "the body is not the form that its type says") from error
        return self._parts

    def end(self) -> int:
        """Return the bytes of the file, when the body has ended."""
        if not self._complete:
            raise RefusedError(400, "the form breaks off")
        return self.found

    def _begin(self) -> None:
        self._disposition = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename")
        self._inside = name is not None and not self._over
        if name is not None and self._inside:
            self._named(name.decode("utf-8", "replace"))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._parts.append(data[start:end])
            self.found += end - start

    def _on_part_end(self) -> None:
        self._over |= self._inside
        self._inside = False

    def _on_end(self) -> None:
        self._complete = True
