"""Options that are derived from settings: all there, each once, and each reaches the job."""

import collections
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin

import in_process
import pytest
import typer
from typer.testing import CliRunner

from vidkd.cli.commands import PANELS, load_command, summary
from vidkd.cli.options import Fields, Json, Options, Setting, settings_of, with_settings
from vidkd.errors import UsageError
from vidkd.recipe.jobs import FinetuneJob, PoseEncoderJob, PoseTrainingJob, TrainingJob
from vidkd.recipe.settings import Option, Settings

OF_STUDENTS = ("teachers", "distillation", "unlabelled")
COMMANDS = {
    "train-teacher": (TrainingJob, (*OF_STUDENTS, "subsets.unlabelled"), "flow"),
    "train-baseline": (TrainingJob, (*OF_STUDENTS, "subsets.unlabelled", "modality"), "rgb"),
    "distill": (TrainingJob, ("modality",), "rgb"),
    "train-encoder": (FinetuneJob, ("subsets.unlabelled",), None),
    "train-encoder --modality pose": (PoseEncoderJob, ("subsets.unlabelled",), None),
    "train-pose": (PoseTrainingJob, (), None),
}
SPECIAL = {
    "modality": "flow",
    "filter": "tgm",
    "name": "other",
    "skeleton": "lcrnet-13",
    "channels": "8,16,32",
    "blocks": "1,2,1",
}
"""Values that other settings, or a check of several of them, leave no choice about."""


@pytest.fixture
def job(monkeypatch):
    """Run a command; give the job that it would have done."""
    found = []

    def keep(job):
        found.append(job)
        raise UsageError("not done in this test")

    for name in (
        "vidkd.distillation.train",
        "vidkd.finetuning.train_encoder",
        "vidkd.pose.training.train_pose",
    ):
        monkeypatch.setattr(name, keep)

    def call(*arguments):
        result = in_process.vidkd(*arguments)
        assert found, result.stderr
        return found.pop()

    return call


def other(setting: Setting):
    """Return a value that is not the default: as it is typed, and as the settings hold it."""
    kind, items = get_origin(setting.type), get_args(setting.type)
    key = setting.name.removeprefix("--")
    if setting.type is bool:
        names = setting.name.split("/")
        return [names[1] if setting.default else names[0]], not setting.default
    if key in SPECIAL and not (key == "channels" and setting.type is int):
        text = SPECIAL[key]
        value = tuple(map(int, text.split(","))) if kind is tuple else text
        return [setting.name, text], value
    if kind is Literal:
        value = next(item for item in items if item != setting.default)
        return [setting.name, value], value
    if kind is dict:
        return [setting.name, "mine=0.5", setting.name, "yours=2"], {"mine": 0.5, "yours": 2.0}
    if setting.repeated:
        return [setting.name, "a", setting.name, "b"], (Path("a"), Path("b"))
    if kind is tuple:
        return [setting.name, "0.25,0.75"], (0.25, 0.75)
    if setting.type is int:
        value = 8 if setting.default is None else setting.default + 4
        return [setting.name, str(value)], value
    if setting.type is float:
        value = 0.5 * (setting.default or 0.5)
        return [setting.name, str(value)], value
    value = setting.type(f"other-{key}")
    return [setting.name, str(value)], value


@pytest.mark.parametrize("command", COMMANDS)
def test_every_field_has_an_option_that_reaches_the_job(job, command):
    model, without, _ = COMMANDS[command]
    settings = list(settings_of(model, Fields(without=without)))
    arguments, wanted = [], {}
    for setting in settings:
        typed, value = other(setting)
        if command.endswith("pose") and setting.path == ("modality",):
            value = "pose"
        else:
            arguments += typed
        wanted[setting.path] = value
    found = job(*command.split(), *arguments)
    for path, value in wanted.items():
        place = found
        for name in path:
            place = getattr(place, name)
        assert place == value, path
    leaves = {path[0] for path in wanted}
    assert leaves | {name.split(".")[0] for name in without} == set(model.model_fields)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_options_the_settings_have_their_own_defaults(job, command):
    model, without, modality = COMMANDS[command]
    needed = {s.name: s for s in settings_of(model, Fields(without=without)) if s.default is ...}
    given = {name: "x" for name in needed if name != "--modality"}
    if command == "distill":
        given["--teacher"] = "x"
    if model is FinetuneJob:
        given |= {"--modality": "rgb", "--videos": "x"}
    found = job(*command.split(), *(part for pair in given.items() for part in pair))
    data = {"output": "x", "annotations": "x", "cache": "x", "data": ("x",)}
    data = {name: value for name, value in data.items() if name in model.model_fields}
    if modality is not None:
        data["modality"] = modality
    if command == "distill":
        data["teachers"] = ("x",)
    if model is FinetuneJob:
        data |= {"modality": "rgb", "videos": "x"}
        del data["cache"]
    assert found == model.model_validate(data)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_short_and_help_all_shows_each_option_once(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    model, without, _ = COMMANDS[command]
    names = {s.name for s in settings_of(model, Fields(without=without))}
    short, full = (
        in_process.vidkd(*command.split()[:1], option).stdout for option in ("--help", "--help-all")
    )
    lines = full.splitlines()
    starts = [line.strip("│ *").split("  ")[0].split(" ")[0] for line in lines if "│" in line]
    counts = collections.Counter(start for start in starts if start.startswith("--"))
    firsts = {name.split("/")[0] for name in names}
    assert {name for name in firsts if counts[name] != 1} == set()
    assert len(short.splitlines()) < len(lines)
    assert {s.name for s in settings_of(model) if s.option.common and s.name in names} <= set(
        short.split()
    ) | {name for name in names if "/" in name}
    panels = [line for line in lines if line.startswith("╭")]
    assert len(panels) == len(set(panels))
    assert all(s.info.description for s in settings_of(model)), "an option without help"


class Inner(Settings):
    """Settings in settings."""

    size: Annotated[int | None, Option(unit="PIXELS")] = None
    """Its size [in pixels]. Default: any."""


class Outer(Settings):
    """Settings of a command that only this test has."""

    inner: Annotated[Inner, Option("part")] = Inner()
    shape: Literal["round", "flat"] = "round"
    """How it looks."""


def test_nested_settings_choices_and_errors():
    found = []

    @with_settings
    def command(outer: Outer, as_json: Json = False) -> None:
        """Do it."""
        found.append((outer, as_json))

    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    assert runner.invoke(app, ["--part-size", "3", "--shape", "flat", "--json"]).exit_code == 0
    assert found == [(Outer(inner=Inner(size=3), shape="flat"), True)]
    error = runner.invoke(app, ["--part-size", "wide", "--shape", "long"]).exception
    assert isinstance(error, UsageError)
    assert "--part-size wide should be a valid integer" in str(error)
    assert "--shape long should be 'round' or 'flat'" in str(error)
    assert "Its size [in pixels]." in runner.invoke(app, ["--help-all"]).stdout


def test_two_options_of_one_name_are_a_mistake_in_the_settings():
    class Twice(Settings):
        first: Inner = Inner()
        second: Inner = Inner()

    with pytest.raises(TypeError, match="two options --size"):
        Options((Twice,), Fields())


def test_what_belongs_to_other_settings_of_a_command_is_refused():
    result = in_process.vidkd(
        *("train-encoder", "--modality", "pose", "--annotations", "a", "--output", "o"),
        *("--cache", "c", "--crop", "96"),
    )
    assert result.returncode == 2
    assert result.stderr.strip() == "error: pose has no --crop; leave it out"


def test_names_of_tables_and_choices_are_completed(monkeypatch):
    monkeypatch.setenv("_VIDKD_COMPLETE", "complete_bash")
    for option, start, names in (
        ("--filter", "", {"ss-tcn", "causal-ss-tcn", "tgm", "lstm"}),
        ("--modality", "p", {"pose"}),
        ("--classification-reduction", "s", {"sum-over-classes"}),
    ):
        monkeypatch.setenv("COMP_WORDS", f"vidkd train-teacher {option} {start}")
        monkeypatch.setenv("COMP_CWORD", "3")
        assert names <= set(in_process.vidkd().stdout.split())


@pytest.mark.parametrize("arguments", [["--nope"], ["no-such"], ["detect"], ["cache", "lss"]])
def test_mistakes_on_the_command_line_are_one_line(arguments):
    result = in_process.vidkd(*arguments)
    assert result.returncode == 2
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("error: ")
    assert "--help`" in result.stderr


def test_commands_are_grouped_and_their_other_names_still_work():
    shown = in_process.vidkd("--help").stdout
    for name in ("Start here", "Extract", "Train", "Evaluate", "Data, models and poses", "Tools"):
        assert shown.count(f"─ {name} ─") == 1
    words = collections.Counter(line.split()[1] for line in shown.splitlines() if "│ " in line[:3])
    for name in ("detect", "extract-flow", "extract-features", "train-teacher", "distill", "pose"):
        assert words[name] == 1
    for name in ("bench", "train-pose", "convert-pose", "label-poses", "evaluate-poses"):
        assert words[name] == 0
        assert in_process.vidkd(name, "--help").returncode == 0
    assert "--backbone" in in_process.vidkd("pose", "train", "--help").stdout


def test_the_version_is_that_of_the_package():
    shown = in_process.vidkd("--version").stdout
    assert shown.startswith(f"vidkd {version('vidkd')} (torch {version('torch')}, Python 3.")


def test_a_completion_script_is_printed(monkeypatch):
    monkeypatch.setenv("_VIDKD_COMPLETE", "source_bash")
    script = in_process.vidkd().stdout
    assert "_VIDKD_COMPLETE=complete_bash" in script
    assert "complete -o default -F" in script


def test_help_imports_neither_torch_nor_settings():
    code = "import sys; sys.argv = ['vidkd', '--help']; from vidkd.cli import app\n"
    code += "app(standalone_mode=False); print(sys.modules.keys() & {'torch', 'pydantic'})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("name", [name for panel in PANELS.values() for name in panel])
def test_the_list_shows_the_first_sentence_of_each_help(name):
    command = load_command(name)
    assert " ".join(command.help.split("\n\n")[0].split()) == summary(name) != ""
    assert command.name == name
