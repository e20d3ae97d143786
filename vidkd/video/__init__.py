"""Video files: what they claim, their frames at their true times, snippets, and writing."""

from __future__ import annotations

from vidkd.video.decode import Frame, read_frames, read_sizes
from vidkd.video.encode import VideoWriter
from vidkd.video.folder import VideoFolder
from vidkd.video.inputs import VIDEO_SUFFIXES, VideoFile, find_videos
from vidkd.video.opened import OpenVideo, VideoInfo, open_video, probe
from vidkd.video.snippets import Snippet, clip_frames, cut_snippets, snippet_count, snippet_pts

__all__ = [
    "VIDEO_SUFFIXES",
    "Frame",
    "OpenVideo",
    "Snippet",
    "VideoFile",
    "VideoFolder",
    "VideoInfo",
    "VideoWriter",
    "clip_frames",
    "cut_snippets",
    "find_videos",
    "open_video",
    "probe",
    "read_frames",
    "read_sizes",
    "snippet_count",
    "snippet_pts",
]
