"""Every recipe that travels with the package fits the schema and names what exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidkd.annotations import READERS
from vidkd.evaluation import PROTOCOLS
from vidkd.files import resources
from vidkd.recipe import DistillationSettings, Pipeline, load_yaml, model_cards, pipeline_path
from vidkd.streams import STREAMS

RECIPES = sorted(resources("pipelines").glob("*.yaml"))
DATA_SETS = {
    *("charades", "multithumos", "pku-mmd-cs", "pku-mmd-cv"),
    *("thumos14", "tsu-cs", "tsu-cv"),
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_validate(path: Path) -> None:
    recipe = load_yaml(path, Pipeline)
    assert recipe.name == path.stem
    assert pipeline_path(recipe.name) == path
    assert PROTOCOLS[recipe.evaluation.frame_protocol].kind == "frame"
    assert PROTOCOLS[recipe.evaluation.event_protocol].kind == "event"
    cards = model_cards()
    for modality, encoder in recipe.encoders.items():
        if modality == "pose":
            assert encoder.name not in cards  # the recipe trains it
        else:
            assert cards[encoder.name].modality == STREAMS[modality].encoder_modality
    if recipe.data is not None:
        assert recipe.data.format in ("auto", *READERS)


@pytest.mark.parametrize("name", sorted(DATA_SETS))
def test_recipes_of_the_papers_data_sets(name: str) -> None:
    path = pipeline_path(name)
    recipe = load_yaml(path, Pipeline)
    # Dai et al. 2021, section 4: batches of 16 on Charades, 8 on PKU-MMD and THUMOS14, 4 on TSU.
    batch = {"charades": 16, "tsu-cs": 4, "tsu-cv": 4}.get(name, 8)
    assert recipe.optimiser.batch_size == batch
    assert (recipe.optimiser.epochs, recipe.optimiser.learning_rate) == (300, 1e-3)
    assert recipe.distillation == DistillationSettings()
    assert recipe.subsets.validation != recipe.evaluation.subset
    text = path.read_text(encoding="utf-8")
    assert "[300, 100, 5]" in text
    assert f"vidkd run {name} " in text
