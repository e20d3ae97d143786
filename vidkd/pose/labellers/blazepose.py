"""Labels people with BlazePose (Bazarevsky et al. 2020), from the mediapipe wheel 0.10.14.

Run by ``vidkd pose label --labeller blazepose`` under an interpreter that has mediapipe. The wheel
holds the two networks bare; the interface that finds several people in one picture wants them with
their input ranges declared and in one archive, which is what ``bundle`` makes, in memory.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any


def with_metadata(model: bytes, mean: float, deviation: float, outputs: int) -> bytes:
    """Return a TFLite model that says that its input is (pixel - mean) / deviation."""
    import flatbuffers
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
    from mediapipe.tasks.python.metadata.metadata import MetadataPopulator

    content = schema.ContentT()
    content.contentPropertiesType = schema.ContentProperties.ImageProperties
    content.contentProperties = schema.ImagePropertiesT()
    content.contentProperties.colorSpace = schema.ColorSpaceType.RGB
    step = schema.ProcessUnitT()
    step.optionsType = schema.ProcessUnitOptions.NormalizationOptions
    step.options = schema.NormalizationOptionsT()
    step.options.mean, step.options.std = [mean], [deviation]
    picture = schema.TensorMetadataT()
    picture.content, picture.processUnits = content, [step]
    graph = schema.SubGraphMetadataT()
    graph.inputTensorMetadata = [picture]
    graph.outputTensorMetadata = [schema.TensorMetadataT() for _ in range(outputs)]
    described = schema.ModelMetadataT()
    described.subgraphMetadata = [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(described.Pack(builder), b"M001")
    populator = MetadataPopulator.with_model_buffer(model)
    populator.load_metadata_buffer(builder.Output())
    populator.populate()
    return bytes(populator.get_model_buffer())


def bundle(modules: Path) -> bytes:
    """Return the archive of both networks that mediapipe's PoseLandmarker reads."""
    detector = (modules / "pose_detection" / "pose_detection.tflite").read_bytes()
    landmarks = (modules / "pose_landmark" / "pose_landmark_full.tflite").read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as target:
        target.writestr("pose_detector.tflite", with_metadata(detector, 127.5, 127.5, 2))
        target.writestr("pose_landmarks_detector.tflite", with_metadata(landmarks, 0.0, 255.0, 5))
    return archive.getvalue()


def read_arguments() -> argparse.Namespace:
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--max-people", type=int, default=4, help="people per picture")
    parser.add_argument("--min-score", type=float, default=0.5, help="of the person detector")
    return parser.parse_args()


def main() -> None:
    """Answer every line of standard input, a picture, with a line on standard output."""
    arguments = read_arguments()
    import mediapipe
    import numpy as np
    from mediapipe.tasks.python import BaseOptions, vision
    from PIL import Image

    options = vision.PoseLandmarkerOptions(
        base_options=BaseOptions(
            model_asset_buffer=bundle(Path(mediapipe.__file__).parent / "modules")
        ),
        running_mode=vision.RunningMode.IMAGE,
        num_poses=arguments.max_people,
        min_pose_detection_confidence=arguments.min_score,
        min_pose_presence_confidence=arguments.min_score,
    )
    with vision.PoseLandmarker.create_from_options(options) as network:
        hello = {
            "format": "vidkd-labeller",
            "version": 1,
            "name": "blazepose-full",
            "joints": "blazepose-33",
            "settings": {"mediapipe": mediapipe.__version__, **vars(arguments)},
        }
        print(json.dumps(hello), flush=True)
        for line in sys.stdin:
            with Image.open(json.loads(line)["image"]) as opened:
                picture = np.array(opened.convert("RGB"))
            found = network.detect(
                mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=picture)
            )
            height, width = picture.shape[:2]
            people = [
                person(flat, solid, width, height)
                for flat, solid in zip(
                    found.pose_landmarks, found.pose_world_landmarks, strict=True
                )
            ]
            print(json.dumps({"people": people}), flush=True)


def person(flat: list[Any], solid: list[Any], width: int, height: int) -> dict[str, Any]:
    """Return one person's 33 joints: pixels with BlazePose's visibility, and metres."""
    return {
        # Normalised coordinates run over the whole picture; pixel centres are at whole numbers.
        "joints_2d": [
            [
                round(joint.x * width - 0.5, 2),
                round(joint.y * height - 0.5, 2),
                round(joint.visibility, 3),
            ]
            for joint in flat
        ],
        "joints_3d": [[round(value, 4) for value in (at.x, at.y, at.z)] for at in solid],
    }


if __name__ == "__main__":
    main()
