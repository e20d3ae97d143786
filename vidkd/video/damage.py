"""Damage that FFmpeg passes over in MPEG transport streams, FLV, AVI, Matroska and WebM.

FFmpeg skips what it cannot parse and goes on, so that a second of video is missing without a word,
and every label after it lies at a wrong time. The formats tell more than that: a transport stream
(ISO/IEC 13818-1) consists of packets of one length, and says in which of them a picture begins; the
tags of FLV and the chunks of AVI follow each other to the byte. The elements of Matroska fill their
parents to the byte, and many writers add a checksum to each cluster (RFC 8794 for the elements, RFC
9559 for their names). MP4 needs none of this: its index names every picture.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

_SYNC = 0x47
_LAYOUTS = ((188, 0), (192, 4), (204, 0))
"""Bytes from packet to packet, and where the sync byte is: plain, Blu-ray, with checksums."""
_PACKETS_AT_ONCE = 1 << 15
_CLOCK = 1 << 33
"""Times are counted in 90 kHz modulo this."""
_FLV_VIDEO, _FLV_COMMAND, _FLV_H264 = 9, 5, 7
_FLV_TAGS = frozenset({8, 9, 18})
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


def _file_size(file: BinaryIO) -> int:
    """Return the bytes of an open file."""
    return os.fstat(file.fileno()).st_size


def transport_damage(
    file: BinaryIO, stream: int, first: int | None = None, pictures: int | None = None
) -> str | None:
    """Return how an MPEG transport stream is damaged, or None; reads the file once.

    Args:
        file: at its start; one whose packets cannot be found is not judged.
        stream: the packet identifier of the video.
        first: time of the first picture that was decoded; those shown before it are not missed.
        pictures: number of pictures that were decoded; None leaves them uncounted.
    """
    size = _file_size(file)
    layout = _layout(file.read(16 * 204))
    if layout is None:
        return None
    begin, length, sync = layout
    if (size - begin) % length:
        return f"the file ends in the middle of a packet, at byte {size}"
    begun = 0
    for place, packets in _packets(file, begin, length):
        wrong = np.flatnonzero(packets[:, sync] != _SYNC)
        if len(wrong):
            return f"no packet where one must be, at byte {place + int(wrong[0]) * length}"
        found = _begun(packets[:, sync:], stream, first)
        if found is None:
            return f"no picture begins where one must, after byte {place}"
        begun += found
    return _undecoded(begun, pictures)


def _layout(head: bytes) -> tuple[int, int, int] | None:
    """Return where packets begin, their length, and where in them the sync byte is."""
    for length, sync in _LAYOUTS:
        # A recording may begin in the middle of a packet.
        for begin in range(length):
            if all(byte == _SYNC for byte in head[begin + sync :: length][:5]):
                return begin, length, sync
    return None


def _packets(file: BinaryIO, begin: int, length: int) -> Iterator[tuple[int, np.ndarray]]:
    file.seek(begin)
    while data := file.read(length * _PACKETS_AT_ONCE):
        whole = len(data) // length * length
        yield begin, np.frombuffer(data, np.uint8, whole).reshape(-1, length)
        begin += len(data)


def _begun(packets: np.ndarray, stream: int, first: int | None) -> int | None:
    """Count the packets (N, at least 188) in which a picture begins that is shown from ``first``.

    Returns None where a packet says that a picture begins in it, and none does.
    """
    flags = packets[:, 1].astype(int)
    wanted = ((flags & 0x1F) << 8 | packets[:, 2]) == stream
    count = 0
    # A unit of the stream begins in it, and it has a payload.
    for packet in packets[wanted & (flags & 0x40 > 0) & (packets[:, 3] & 0x10 > 0)]:
        start = 4 + (1 + int(packet[4]) if packet[3] & 0x20 else 0)
        head = packet[start : start + 14].tobytes()
        if head[:3] != b"\0\0\1":
            return None
        if len(head) < 14 or not head[7] & 0x80:
            continue  # it has no time
        time = (
            (head[9] >> 1 & 7) << 30
            | head[10] << 22
            | head[11] >> 1 << 15
            | head[12] << 7
            | head[13] >> 1
        )
        count += first is None or (time - first) % _CLOCK < _CLOCK // 2
    return count


def flv_damage(file: BinaryIO, first: int | None = None, pictures: int | None = None) -> str | None:
    """Return where the tags of an FLV file do not follow each other, or None.

    The heads of the tags are read, not their content.

    Args:
        file: at its start.
        first: time of the first picture that was decoded, in ms; those before it are not missed.
        pictures: number of pictures of H.264 that were decoded; None leaves them uncounted.
    """
    size = _file_size(file)
    begun = 0
    head = file.read(9)
    if head[:3] != b"FLV":
        return None
    position = int.from_bytes(head[5:9], "big") + 4
    while position < size:
        file.seek(position)
        tag = file.read(11 + 6)
        length = int.from_bytes(tag[1:4], "big")
        end = position + 11 + length + 4
        if len(tag) >= 11 and (tag[0] & 0x1F not in _FLV_TAGS or any(tag[8:11])):
            return f"no tag where one must be, at byte {position}"
        if len(tag) < 11 or end > size:
            return f"the file ends in a tag that begins at byte {position}"
        file.seek(end - 4)
        if int.from_bytes(file.read(4), "big") not in (length + 11, 0):
            return f"a tag of another length at byte {position}"
        begun += length > 0 and _is_picture(tag, first)
        position = end
    return _undecoded(begun, pictures)


def _undecoded(begun: int, pictures: int | None) -> str | None:
    """Say how many of the pictures that begin in a file were not decoded, if that was counted."""
    if pictures is None or begun <= pictures:
        return None
    return f"{begun - pictures} of {begun} pictures cannot be decoded"


def _is_picture(tag: bytes, first: int | None) -> bool:
    """Say whether a tag, given by its first 17 bytes, holds a picture shown from ``first`` on."""
    if tag[0] & 0x1F != _FLV_VIDEO:
        return False
    kind, codec = tag[11] >> 4, tag[11] & 0x0F
    if kind == _FLV_COMMAND:
        return False
    if codec == _FLV_H264 and (tag[12:13], tag[16:17]) == (b"\0", b"\1"):
        return False  # the decoder's settings, in their only version
    if codec == _FLV_H264 and tag[1:4] == b"\0\0\5":
        return False  # the end of the stream, which holds nothing
    time = int.from_bytes(tag[7:8] + tag[4:7], "big")
    if codec == _FLV_H264:
        time += int.from_bytes(tag[13:16], "big", signed=True)
    return first is None or time >= first


def avi_damage(file: BinaryIO) -> str | None:
    """Return where the chunks of an AVI file that hold its streams are damaged, or None.

    What follows them (the index) may be damaged. A file whose writer was stopped, and which
    therefore has no lengths, may end anywhere.
    """
    size = _file_size(file)
    position = 0
    while size - position >= 12:
        name, length, kind = _chunk(file, position)
        if name != b"RIFF" or kind not in (b"AVI ", b"AVIX") or not length:
            return None  # something was appended
        end = position + 8 + length + length % 2
        damage = _riff_damage(file, position + 12, min(end, size), size)
        if damage is not None:
            return damage
        position = end
    return None


def _riff_damage(file: BinaryIO, position: int, limit: int, size: int) -> str | None:
    while limit - position >= 12:
        name, length, kind = _chunk(file, position)
        end = position + 8 + length + length % 2
        if name == b"LIST" and kind == b"movi" and length:
            if position + 8 + length > size:
                return f"the file ends at byte {size} of {end}"
            return _movi_damage(file, position + 12, end)
        position = end
    return None


def _movi_damage(file: BinaryIO, position: int, end: int) -> str | None:
    while end - position >= 8:
        name, length, kind = _chunk(file, position)
        if not name.isalnum() and name != b"rec ":
            return f"no chunk where one must be, at byte {position}"
        start, position = position, position + 8 + length + length % 2
        if name == b"LIST" and kind == b"rec ":
            position = start + 12  # a group, whose chunks follow
        if position > end + 1:
            return f"a chunk at byte {start} that is longer than its list"
    return None


def _chunk(file: BinaryIO, position: int) -> tuple[bytes, int, bytes]:
    """Return name and length of a chunk, and the first four bytes in it."""
    file.seek(position)
    head = file.read(12)
    return head[:4], int.from_bytes(head[4:8], "little"), head[8:]


class _DamageError(Exception):
    """Carries the byte and the reason out of the walk."""


def matroska_damage(file: BinaryIO) -> str | None:
    """Return where and how the clusters of a Matroska file are damaged, or None.

    The file's blocks are visited, or read where clusters have checksums; memory stays small. What
    follows the clusters (index, tags) may be damaged. A file whose writer was stopped, and which
    therefore has no length, may end anywhere.
    """
    try:
        _check_file(file, _file_size(file))
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
