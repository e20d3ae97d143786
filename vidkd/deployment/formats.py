"""How a module becomes a file, by format, and what the script needs to run it."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidkd.errors import UsageError, VidkdError

_OPSET = 18
"""The first of ONNX that keeps the largest of what is scattered to one place."""
_LARGEST_FILE = 1 << 30
"""Bytes of weights beyond which they lie beside the graph: a file of ONNX holds 2 GB."""

LOAD = """import onnxruntime
def load(path):
    graph = onnxruntime.InferenceSession(path)
    return lambda *x: graph.run(None, {item.name: own for item, own in zip(graph.get_inputs(), x)})
"""
"""How ``run.py`` runs a graph; other formats have a function of their own in its place."""


@dataclass(frozen=True)
class Graph:
    """A module with what is fixed about its inputs and outputs.

    Attributes:
        module: in evaluation mode.
        inputs: an example of each, by name, in the order of ``forward``.
        sizes: of each input, the names of the dimensions that may have any size.
        outputs: their names, in order.
        least: the smallest size of dimensions by name, where it is more than 1.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    sizes: tuple[Mapping[int, str], ...]
    outputs: tuple[str, ...]
    least: Mapping[str, int]

    def program(self) -> torch.export.ExportedProgram:
        """Follow the module for inputs of any size."""
        names = {name for own in self.sizes for name in own.values()}
        dims = {n: torch.export.Dim(n, min=self.least.get(n, 1), max=1 << 24) for n in names}
        shapes: list[Any] = [{d: dims[n] for d, n in own.items()} for own in self.sizes]
        # What `forward` takes as *state is one input for torch.export.
        known = self.module.forward.__code__.co_argcount - 1
        if known < len(shapes):
            shapes = [*shapes[:known], tuple(shapes[known:])]
        with _quiet():
            return torch.export.export(
                self.module,
                tuple(self.inputs.values()),
                dynamic_shapes=tuple(shapes),
                prefer_deferred_runtime_asserts_over_guards=True,
            )


@dataclass(frozen=True)
class Format:
    """A format of graphs.

    Attributes:
        ending: of a file.
        packages: that write and run it, with the extra that brings them.
        load: what ``run.py`` has in place of `LOAD`.
    """

    ending: str
    packages: Mapping[str, str]
    load: str

    def check(self) -> None:
        """Raise UsageError unless the packages are there."""
        for name, extra in self.packages.items():
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise UsageError(
                    f"this format needs {name}, which is not installed",
                    remedy=f"run `pip install 'vidkd[{extra}]'`",
                ) from error

    def write(self, graph: Graph, path: Path) -> None:
        """Write a graph as a file.

        Raises:
            VidkdError: the module does something that a graph cannot.
        """
        try:
            self._write(graph, path)
        except Exception as error:
            reason = str(error).strip().split("\n")[0][:200]
            raise VidkdError(
                f"the {path.stem} cannot be written as a graph: {reason}",
                remedy="export a student of another encoder or --filter, or give another --format",
            ) from error

    def _write(self, graph: Graph, path: Path) -> None:
        raise NotImplementedError


class _TorchExport(Format):
    def _write(self, graph: Graph, path: Path) -> None:
        torch.export.save(graph.program(), path)


class _Onnx(Format):
    def _write(self, graph: Graph, path: Path) -> None:
        program = graph.program()
        with _quiet():
            made = torch.onnx.export(
                program,
                (),
                dynamo=True,
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                opset_version=_OPSET,
                verbose=False,
            )
        assert made is not None
        own = made.model.graph
        names: dict[str, str] = {}
        for value, sizes in zip(own.inputs, graph.sizes, strict=True):
            assert value.shape is not None
            names |= {str(value.shape[place]): name for place, name in sizes.items()}
        for value in (*own.inputs, *own.outputs):
            if value.shape is not None:
                value.shape = type(value.shape)(names.get(str(dim), dim) for dim in value.shape)
        size = sum(weight.nbytes for weight in graph.module.state_dict().values())
        made.save(path, external_data=size > _LARGEST_FILE)


class _OpenVino(_Onnx):
    def _write(self, graph: Graph, path: Path) -> None:
        import openvino

        between = path.with_suffix(".onnx")
        super()._write(graph, between)
        openvino.save_model(openvino.convert_model(between), path, compress_to_fp16=False)
        for file in between.parent.glob(f"{between.name}*"):
            file.unlink()


FORMATS: dict[str, Format] = {
    "onnx": _Onnx(".onnx", {"onnx": "onnx", "onnxscript": "onnx", "onnxruntime": "onnx"}, LOAD),
    "openvino": _OpenVino(
        ".xml",
        {"onnx": "onnx", "onnxscript": "onnx", "openvino": "openvino"},
        """import openvino
def load(path):
    graph = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda *x: [output.copy() for output in graph(list(x)).values()]
""",
    ),
    "torch-export": _TorchExport(
        ".pt2",
        {},
        """import torch
def load(path):
    graph = torch.export.load(path).module(check_guards=False)
    return lambda *x: [y.numpy() for y in graph(*map(torch.from_numpy, x))]
""",
    ),
}
"""By the name of ``--format``."""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what torch and its exporters say of their own work off the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
