"""The sound of a video, in time with its pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from vidkd.video.opened import OpenVideo, open_video, probe

_AAC_RATES = frozenset(
    {96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000}
)
_USUAL_RATE = 48000
_JITTER = 0.02
"""Seconds by which times of sound may differ from the number of samples: containers round."""
_BEFORE = 1.0
"""Seconds before the wanted ones from which to decode, for codecs that need a run-up."""


class SoundReader:
    """Samples of a video's sound from a second on, with silence where there is none.

    Args:
        video: opened for nothing else.
        origin: second of the container's clock at which the first picture is shown.
        start: second from the first picture on at which the first sample is wanted.
        rate: samples per second, or None for those of the file.
        layout: ``mono`` or ``stereo``, or None for that of the file, at most stereo.
    """

    def __init__(
        self,
        video: OpenVideo,
        origin: float,
        start: float,
        rate: int | None = None,
        layout: str | None = None,
    ) -> None:
        stream = video.container.streams.audio[0]
        own = stream.codec_context.sample_rate
        self.rate = rate or (own if own in _AAC_RATES else _USUAL_RATE)
        self.layout = layout or ("mono" if stream.codec_context.channels == 1 else "stereo")
        self._channels = 1 if self.layout == "mono" else 2
        self._given = 0
        self._rest = np.zeros((self._channels, 0), np.float32)
        self._blocks: Iterator[np.ndarray] = self._decoded(video, origin + start)

    def until(self, second: float) -> Iterator[np.ndarray]:
        """Yield (channels, N) float32 up to a second that is counted from the start."""
        wanted = round(second * self.rate)
        while self._given < wanted:
            if not self._rest.shape[1]:
                missing = wanted - self._given
                silence = np.zeros((self._channels, missing), np.float32)
                self._rest = next(self._blocks, silence)
            block = self._rest[:, : wanted - self._given]
            self._rest = self._rest[:, block.shape[1] :]
            self._given += block.shape[1]
            if block.shape[1]:
                yield block

    def _decoded(self, video: OpenVideo, begin: float) -> Iterator[np.ndarray]:
        """Yield all samples from a second of the container's clock on, without gaps."""
        container = video.container
        stream = container.streams.audio[0]
        if begin > 2 * _BEFORE:
            with contextlib.suppress(av.error.FFmpegError):
                container.seek(int((begin - _BEFORE) * av.time_base))
        resampler = av.AudioResampler("fltp", self.layout, self.rate)
        have = 0
        for frame in _frames(container, stream):
            if frame.pts is None or frame.time_base is None:
                continue
            target = round((float(frame.pts * frame.time_base) - begin) * self.rate)
            for part in resampler.resample(frame):
                samples = part.to_ndarray()
                if have == 0 or abs(target - have) > _JITTER * self.rate:
                    if target > have:
                        yield np.zeros((self._channels, target - have), np.float32)
                        have = target
                    samples = samples[:, max(0, have - target) :]
                have += samples.shape[1]
                target = have
                if samples.shape[1]:
                    yield samples


def _frames(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[av.AudioFrame]:
    """Yield what can be decoded; what is damaged is passed over, and becomes silence."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, IndexError, av.error.FFmpegError):
            return
        with contextlib.suppress(av.error.FFmpegError):
            yield from packet.decode()


@contextlib.contextmanager
def open_sound(
    path: str | Path, start: float = 0.0, rate: int | None = None, layout: str | None = None
) -> Iterator[SoundReader | None]:
    """Open the sound of a video while the block runs; None when it has none.

    Args:
        path: the video.
        start: second from the first picture on at which the sound begins.
        rate: samples per second, or None for those of the file.
        layout: ``mono`` or ``stereo``, or None for that of the file.

    Raises:
        VideoError: the video cannot be opened.
    """
    origin = probe(path).start_time
    with open_video(path, threads=1) as video:
        streams = video.container.streams.audio
        known = bool(streams) and streams[0].codec_context is not None
        yield SoundReader(video, origin, start, rate, layout) if known else None
