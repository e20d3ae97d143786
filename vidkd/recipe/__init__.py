"""The schema of ``models/*.yaml`` and ``pipelines/*.yaml``: every setting of a run, validated.

The same settings classes describe a recipe, the options of a command and the header of a weights
file, so that a number means the same thing wherever it is written.
"""

from vidkd.recipe.choices import Modality, Precision
from vidkd.recipe.evaluation import SegmentSettings
from vidkd.recipe.inputs import (
    FlowSettings,
    FrameSettings,
    PoseSettings,
    SnippetSettings,
    SynthSettings,
    TrackSettings,
    given_or,
)
from vidkd.recipe.live import LiveSettings, OutputSettings
from vidkd.recipe.models import ModelCard, WeightsSource, model_cards, pose_detector_cards
from vidkd.recipe.pipeline import Pipeline, PoseExtraction, pipeline_path
from vidkd.recipe.pose import PoseInputSettings
from vidkd.recipe.settings import Settings, describe, load_yaml
from vidkd.recipe.training import DistillationSettings, FilterSettings

__all__ = [
    "DistillationSettings",
    "FilterSettings",
    "FlowSettings",
    "FrameSettings",
    "LiveSettings",
    "Modality",
    "ModelCard",
    "OutputSettings",
    "Pipeline",
    "PoseExtraction",
    "PoseInputSettings",
    "PoseSettings",
    "Precision",
    "SegmentSettings",
    "Settings",
    "SnippetSettings",
    "SynthSettings",
    "TrackSettings",
    "WeightsSource",
    "describe",
    "given_or",
    "load_yaml",
    "model_cards",
    "pipeline_path",
    "pose_detector_cards",
]
