import shutil

import artificial
import pytest
import torch

from vidkd.distillation import train
from vidkd.recipe.jobs import TrainingJob


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Several threads only get into each other's way on tensors this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder with ``cache`` and ``annotations.json``; not to be changed."""
    folder = tmp_path_factory.mktemp("artificial")
    artificial.make(folder)
    return folder


@pytest.fixture
def own_data(data, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(data, tmp_path / "own")


@pytest.fixture
def job(data, tmp_path):
    """Build a short training job; keyword arguments replace fields."""

    def build(name="run", folder=data, **fields):
        optimiser = {"epochs": 3, "batch_size": 4, **fields.pop("optimiser", {})}
        settings = {"channels": 8, "layers": 2, **fields.pop("filter", {})}
        return TrainingJob.model_validate(
            {
                "output": tmp_path / name,
                "cache": folder / "cache",
                "annotations": folder / "annotations.json",
                "optimiser": optimiser,
                "filter": settings,
                "device": "cpu",
                **fields,
            }
        )

    return build


@pytest.fixture(scope="session")
def teacher(data, tmp_path_factory):
    """The run folder of a trained flow teacher."""
    output = tmp_path_factory.mktemp("teacher") / "run"
    train(
        TrainingJob.model_validate(
            {
                "output": output,
                "cache": data / "cache",
                "annotations": data / "annotations.json",
                "modality": "flow",
                "optimiser": {"epochs": 30, "batch_size": 4, "learning_rate": 0.01},
                "filter": {"channels": 8, "layers": 2, "dropout": 0.0},
                "device": "cpu",
            }
        )
    )
    return output
