"""Writing H.264 video that plays everywhere."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer
from av.video import VideoStream
from av.video.reformatter import ColorRange, Colorspace

from vidkd.errors import VidkdError
from vidkd.files import atomic_path


def add_h264(
    container: OutputContainer, rate: Fraction, width: int, height: int, options: dict[str, str]
) -> VideoStream:
    """Add a stream of H.264 (yuv420p) to a file that is being written.

    Args:
        container: the file.
        rate: frames per second.
        width: pixels, an even number.
        height: likewise.
        options: of x264.
    """
    stream = container.add_stream("libx264", rate=rate)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.options = {"preset": "veryfast", **options}
    # What libswscale's conversion from RGB makes; players guess wrongly for large pictures.
    stream.codec_context.colorspace = Colorspace.SMPTE170M
    stream.codec_context.color_range = ColorRange.MPEG
    return stream


class VideoWriter:
    """Writes RGB pictures as H.264 (yuv420p) into an MP4 file that appears when it is complete.

    Use it as a context manager; when the block raises, nothing is left behind.

    Args:
        path: the file; its ending should be ``.mp4``.
        width: pixels; odd sizes get one more column, since 4:2:0 chroma needs even ones.
        height: likewise.
        frame_rate: frames per second.
        quality: x264's constant rate factor, 0 (lossless) to 51; 18 is visually lossless.
        threads: of the encoder; with 1 the same pictures give the same file on every machine.
        sound: samples per second and layout (``mono`` or ``stereo``) of the sound, which is
            written as AAC; None for no sound.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        frame_rate: float | Fraction,
        *,
        quality: int = 18,
        threads: int = 1,
        sound: tuple[int, str] | None = None,
    ) -> None:
        if width < 2 or height < 2:
            raise ValueError("a video needs at least 2x2 pixels")
        self._path = Path(path)
        self._size = (height, width)
        self._pad = (height % 2, width % 2)
        self._rate = Fraction(frame_rate).limit_denominator(100_000)
        self._quality = quality
        self._threads = threads
        self._stack = contextlib.ExitStack()
        self._written = 0
        self._sound = sound
        self._samples = 0

    @property
    def seconds(self) -> float:
        """Length of the pictures that have been written."""
        return float(self._written / self._rate)

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self._path))
            self._container = av.open(
                str(temporary), "w", format="mp4", options={"movflags": "+faststart"}
            )
            stack.callback(self._container.close)
            stream = add_h264(
                self._container,
                self._rate,
                self._size[1] + self._pad[1],
                self._size[0] + self._pad[0],
                # Measured: with x264's macroblock tree the same pictures give other bytes in about
                # every third process, even with one thread.
                {"crf": str(self._quality), "x264-params": "mbtree=0"},
            )
            stream.codec_context.thread_count = self._threads
            self._stream = stream
            if self._sound is not None:
                rate, layout = self._sound
                self._audio = self._container.add_stream("aac", rate=rate, layout=layout)
            self._stack = stack.pop_all()
        return self

    def write(self, image: np.ndarray) -> None:
        """Append one picture, (H, W, 3) uint8 RGB of the size given."""
        if image.shape != (*self._size, 3) or image.dtype != np.uint8:
            raise ValueError(f"expected uint8 of shape {(*self._size, 3)}, not {image.shape}")
        if any(self._pad):
            image = np.pad(image, ((0, self._pad[0]), (0, self._pad[1]), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = self._written
        frame.time_base = 1 / self._rate
        self._written += 1
        try:
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def write_sound(self, samples: np.ndarray) -> None:
        """Append samples, (channels, N) float32 in [-1, 1].

        Write them along with the pictures: what one of the two is ahead is kept in memory.
        """
        if self._sound is None:
            raise ValueError("the writer was made without sound")
        rate, layout = self._sound
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, self._samples, Fraction(1, rate)
        self._samples += samples.shape[1]
        try:
            for packet in self._audio.encode(frame):
                self._container.mux(packet)
        except (av.error.FFmpegError, OSError) as error:
            raise self._failed(error) from error

    def write_silence(self) -> None:
        """Append silence up to the end of the pictures, if the file has sound."""
        if self._sound is not None:
            rate, layout = self._sound
            missing = round(self.seconds * rate) - self._samples
            if missing > 0:
                self.write_sound(np.zeros((1 if layout == "mono" else 2, missing), np.float32))

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        if kind is None:
            try:
                if not self._written:
                    raise ValueError("no picture was given")
                for packet in self._stream.encode():
                    self._container.mux(packet)
                if self._samples:
                    for sound in self._audio.encode():
                        self._container.mux(sound)
                # Closing writes the index, and may be what meets a full disk.
                self._container.close()
            except (av.error.FFmpegError, OSError, ValueError) as failure:
                wrapped = self._failed(failure)
                self._stack.__exit__(type(wrapped), wrapped, wrapped.__traceback__)
                raise wrapped from failure
        self._stack.__exit__(kind, *error)

    def _failed(self, error: Exception) -> VidkdError:
        reason = getattr(error, "strerror", None) or str(error)
        return VidkdError(
            f"cannot be written ({reason})",
            path=self._path,
            remedy="free some space or choose another place",
        )
