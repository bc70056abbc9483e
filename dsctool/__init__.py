"""Cascade instance segmentation for crowded, overlapping things.

>>> import dsctool
>>> model = dsctool.build_model("htc_r50_fpn_1x_coco")  # a name, a path or a Config; random weights
>>> model = dsctool.load_model("runs/x/best.pt")  # ready to predict
>>> stats = dsctool.evaluate_model(model, "datasets/coco").stats  # or a checkpoint's path
>>> for file, instances in dsctool.predict_images(model, "photos/"): ...
>>> stats = dsctool.evaluate("ground_truth.json", "predictions.json")
>>> quality = dsctool.evaluate_panoptic("panoptic_val2017.json", "panoptic_predictions.json").all.pq
>>> report = dsctool.huddle_report("ground_truth.json", "predictions.json", "baseline.json")

Everything is resolved on first use: ``import dsctool`` alone does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dsctool import interop
    from dsctool.config.loading import load_config
    from dsctool.config.schema import Config
    from dsctool.engine.inference import predict_images
    from dsctool.engine.split_results import evaluate_model
    from dsctool.evaluation.coco import evaluate
    from dsctool.evaluation.huddle.study import huddle_report
    from dsctool.evaluation.panoptic import evaluate_panoptic
    from dsctool.interop.checkpoint import load_model
    from dsctool.models.detector import Detector

__version__ = "0.1.0"
__all__ = [
    "Config",
    "__version__",
    "build_model",
    "evaluate",
    "evaluate_model",
    "evaluate_panoptic",
    "huddle_report",
    "interop",
    "load_config",
    "load_model",
    "predict_images",
]

_HOMES = {
    "Config": "dsctool.config.schema",
    "evaluate": "dsctool.evaluation.coco",
    "evaluate_model": "dsctool.engine.split_results",
    "evaluate_panoptic": "dsctool.evaluation.panoptic",
    "huddle_report": "dsctool.evaluation.huddle.study",
    "load_config": "dsctool.config.loading",
    "load_model": "dsctool.interop.checkpoint",
    "predict_images": "dsctool.engine.inference",
}


def build_model(config: str | Path | Config) -> Detector:
    """The detector that a configuration describes, with random weights.

    ``config`` is the name of a shipped configuration, a path to a YAML file or a :class:`Config`. Raises
    :class:`dsctool.errors.ConfigError` where it can't be used.
    """
    from dsctool.config.loading import load_config
    from dsctool.config.schema import Config
    from dsctool.models.build import build_detector

    return build_detector(config if isinstance(config, Config) else load_config(config))


def __getattr__(name: str) -> object:
    if name == "interop":
        return import_module("dsctool.interop")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'dsctool' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
