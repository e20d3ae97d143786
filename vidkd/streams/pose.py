"""People's poses, from the cache."""

from __future__ import annotations

from vidkd.streams.base import Stream


class Pose(Stream):
    """3D joints of the people in every frame, encoded by 2s-AGCN."""

    name = "pose"
    label = "Pose"
    artefact = "pose"
    command = "extract-pose"
    trained_by_recipe = True
    crops = False
    encoder_modality = "pose"
