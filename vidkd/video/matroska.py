"""Damage that FFmpeg passes over in Matroska and WebM.

FFmpeg's demuxer skips what it cannot parse and goes on with the next cluster, so that a second of
video is missing without a word. The structure tells: elements fill their parents to the byte, and
many writers add a checksum to each cluster (RFC 8794 for the elements, RFC 9559 for their names).
"""

from __future__ import annotations

import io
import os
import zlib
from typing import BinaryIO

from vidkd.video.structure import file_size

_SEGMENT, _CLUSTER, _CHECKSUM, _VOID = 0x18538067, 0x1F43B675, 0xBF, 0xEC
_IN_SEGMENT = frozenset(
    {_CLUSTER, _CHECKSUM, _VOID, 0x114D9B74, 0x1549A966, 0x1654AE6B}  # seek head, info, tracks
    | {0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367}  # cues, attachments, chapters, tags
)
_IN_CLUSTER = frozenset(
    {_CHECKSUM, _VOID, 0xE7, 0xA7, 0xAB, 0xA3, 0xA0}  # time, position, sizes, blocks and groups
    | {0xAF, 0x5854}  # encrypted blocks, silent tracks
)
_CHUNK = 1 << 20


class _DamageError(Exception):
    """Carries the byte and the reason out of the walk."""


def matroska_damage(file: BinaryIO) -> str | None:
    """Return where and how the clusters of a Matroska file are damaged, or None.

    The file's blocks are visited, or read where clusters have checksums; memory stays small. What
    follows the clusters (index, tags) may be damaged. A file whose writer was stopped, and which
    therefore has no length, may end anywhere.
    """
    try:
        _check_file(file, file_size(file))
    except _DamageError as damage:
        return str(damage)
    return None


def _check_file(stream: BinaryIO, size: int) -> None:
    position = 0
    while position < size:
        name, begin, length = _element(stream, position, size)
        if name == _SEGMENT:
            _check_segment(stream, begin, None if length is None else begin + length, size)
            return
        if length is None:
            raise _DamageError(f"an element of no length at byte {position}")
        position = begin + length


def _check_segment(stream: BinaryIO, position: int, end: int | None, size: int) -> None:
    limit = size if end is None else min(end, size)
    after_clusters = False
    while position < limit:
        if end is None and size - position < 12:
            return
        name, begin, length = _element(stream, position, limit)
        if name not in _IN_SEGMENT:
            raise _DamageError(f"an unknown element at byte {position}")
        if name != _CLUSTER:
            if length is None:
                raise _DamageError(f"an element of no length at byte {position}")
            after_clusters = True
            position = begin + length
            continue
        after_clusters = False
        if length is None:
            position = _check_open_cluster(stream, begin, limit)
            continue
        position = begin + length
        if position <= limit:
            _check_cluster(stream, begin, position)
        elif end is not None:
            raise _DamageError(f"the file ends in a cluster that begins at byte {begin}")
    if end is not None and end > size and not after_clusters:
        raise _DamageError(f"the file ends at byte {size} of {end}")


def _check_cluster(stream: BinaryIO, begin: int, end: int) -> None:
    position = begin
    while position < end:
        start = position
        name, first, length = _element(stream, position, end)
        position = end + 1 if length is None else first + length
        if name not in _IN_CLUSTER or position > end:
            raise _DamageError(f"a damaged cluster at byte {start}")
        if name == _CHECKSUM and start == begin and length == 4:
            stream.seek(first)
            if int.from_bytes(stream.read(4), "little") != _crc(stream, end - position):
                raise _DamageError(f"a cluster at byte {begin} that contradicts its checksum")
            return


def _check_open_cluster(stream: BinaryIO, position: int, limit: int) -> int:
    """Walk a cluster without a length, which ends where an element of the segment begins."""
    while limit - position >= 12:
        name, begin, length = _element(stream, position, limit)
        if name in _IN_SEGMENT - _IN_CLUSTER:
            return position
        if name not in _IN_CLUSTER or length is None:
            raise _DamageError(f"a damaged cluster at byte {position}")
        position = begin + length
    return limit


def _crc(stream: BinaryIO, count: int) -> int:
    value = 0
    while count:
        data = stream.read(min(count, _CHUNK))
        if not data:
            break
        value = zlib.crc32(data, value)
        count -= len(data)
    return value


def _element(stream: BinaryIO, position: int, limit: int) -> tuple[int, int, int | None]:
    """Return the name, first byte and length (None: unknown) of the element at ``position``."""
    stream.seek(position, os.SEEK_SET)
    head = io.BytesIO(stream.read(min(12, limit - position)))
    name, _ = _number(head, position, longest=4, keep_marker=True)
    length, bits = _number(head, position, longest=8, keep_marker=False)
    return name, position + head.tell(), None if length == (1 << bits) - 1 else length


def _number(head: BinaryIO, position: int, *, longest: int, keep_marker: bool) -> tuple[int, int]:
    """Read a number of variable length; return it and how many bits it has."""
    first = head.read(1)
    width = 9 - first[0].bit_length() if first else longest + 1
    if width > longest:
        raise _DamageError(f"no element at byte {position}")
    rest = head.read(width - 1)
    if len(rest) < width - 1:
        raise _DamageError(f"an element that breaks off at byte {position}")
    lead = first[0] if keep_marker else first[0] & (0xFF >> width)
    return int.from_bytes(bytes([lead]) + rest, "big"), 7 * width
