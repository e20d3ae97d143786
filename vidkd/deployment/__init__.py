"""Students as files that run elsewhere: graphs of ONNX, OpenVINO and torch.export.

A folder holds the graphs of the encoder and of all that follows it, what they want to be known
(``detector.json``), and a script that finds a video's actions with them, without vidkd.
"""

from vidkd.deployment.folder import Exported, export_student
from vidkd.deployment.formats import FORMATS

__all__ = ["FORMATS", "Exported", "export_student"]
