"""The schema of ``models/*.yaml`` and ``pipelines/*.yaml``: every setting of a run, validated.

The same settings classes describe a recipe, the options of a command and the header of a weights
file, so that a number means the same thing wherever it is written.
"""

from vidkd.recipe.benchmark import (
    BaselineWeights,
    BenchmarkSettings,
    MethodSettings,
    SplitSettings,
)
from vidkd.recipe.choices import (
    FilterKind,
    Modality,
    Precision,
)
from vidkd.recipe.evaluation import (
    EvaluationSettings,
    SegmentSettings,
)
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
from vidkd.recipe.models import (
    ModelCard,
    PoseDetectorCard,
    Quantisation,
    ReferenceOutput,
    WeightsSource,
    model_cards,
    pose_detector_cards,
)
from vidkd.recipe.pipeline import (
    EncoderSettings,
    FolderData,
    Pipeline,
    PoseExtraction,
    pipeline_path,
)
from vidkd.recipe.pose import (
    PoseAugmentation,
    PoseEncoderSettings,
    PoseInputSettings,
    PoseNetworkSettings,
)
from vidkd.recipe.settings import (
    Settings,
    describe,
    load_yaml,
    validated,
)
from vidkd.recipe.training import (
    DistillationSettings,
    FilterSettings,
    OptimiserSettings,
    SubsetSettings,
)

__all__ = [
    "BaselineWeights",
    "BenchmarkSettings",
    "DistillationSettings",
    "EncoderSettings",
    "EvaluationSettings",
    "FilterKind",
    "FilterSettings",
    "FlowSettings",
    "FolderData",
    "FrameSettings",
    "LiveSettings",
    "MethodSettings",
    "Modality",
    "ModelCard",
    "OptimiserSettings",
    "OutputSettings",
    "Pipeline",
    "PoseAugmentation",
    "PoseDetectorCard",
    "PoseEncoderSettings",
    "PoseExtraction",
    "PoseInputSettings",
    "PoseNetworkSettings",
    "PoseSettings",
    "Precision",
    "Quantisation",
    "ReferenceOutput",
    "SegmentSettings",
    "Settings",
    "SnippetSettings",
    "SplitSettings",
    "SubsetSettings",
    "SynthSettings",
    "TrackSettings",
    "WeightsSource",
    "describe",
    "given_or",
    "load_yaml",
    "model_cards",
    "pipeline_path",
    "pose_detector_cards",
    "validated",
]
