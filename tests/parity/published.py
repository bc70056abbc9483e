"""Models filled by the recordings' rule, and comparisons that say the largest difference."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

import dsctool
from dsctool.config.loading import load_config
from dsctool.models.build import build_detector
from dsctool.models.detector import Detector
from dsctool.structures import Instances, Proposals, Targets
from tests.conftest import RECORDINGS
from tests.models.undrawn import undrawn_weights
from tests.parity import fill

RECORDED_SAMPLING = (
    "model.rpn.samples=10000000",
    "model.rpn.train_max_proposals=600",
    "model.cascade.samples=10000000",
)
"""The recordings of training take every candidate, so that nothing is drawn."""


def published_keys(name: str) -> dict[str, tuple[int, ...]]:
    """Parameter and buffer names of a published checkpoint, with their shapes."""
    folder = RECORDINGS / "dsc" if "dsc" in name else RECORDINGS
    contents = json.loads((folder / f"{name}.keys.json").read_text())
    entries = contents["keys" if "dsc" in name else "entries"]
    return {key: tuple(shape) for key, (shape, _) in entries.items()}


def filled_model(name: str, overrides: Sequence[str] = ()) -> Detector:
    """The shipped configuration ``name`` with the recorded weights, loaded under their published names."""
    with undrawn_weights():
        model = build_detector(load_config(name, overrides))
    state = {key: torch.from_numpy(_filled(name, key, shape)) for key, shape in published_keys(name).items()}
    dsctool.interop.load_published(model, state)
    return model.eval()


def _filled(name: str, key: str, shape: tuple[int, ...]) -> np.ndarray:
    shared = key.startswith("roi_head.bbox_head.") or ("r50" in name and key.startswith(("backbone.", "neck.")))
    return _filled_once(key, shape) if shared else fill.fill(key, shape)


@cache
def _filled_once(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Most numbers of a model, and the same in most models: half a gigabyte in all, until they are forgotten."""
    return fill.fill(key, shape)


def forget_weights() -> None:
    """Free what :func:`filled_model` keeps."""
    _filled_once.cache_clear()


def recording(name: str) -> dict[str, np.ndarray]:
    """The arrays of ``recordings/<name>.npz``."""
    with np.load(RECORDINGS / f"{name}.npz") as file:
        return dict(file)


def difference(ours: Tensor, recorded: np.ndarray) -> float:
    """The largest absolute difference; shapes must agree."""
    assert tuple(ours.shape) == recorded.shape
    return float(np.abs(ours.detach().double().numpy() - recorded).max(initial=0))


def map_difference(ours: Tensor, recorded: dict[str, np.ndarray], name: str) -> float:
    """Largest difference on the recorded cells of a map, relative to its maximum; statistics are checked too."""
    channel, y, x = recorded[f"slice/{name}"]
    assert tuple(ours.shape) == tuple(recorded[f"shape/{name}"]), name
    mean, std, peak = recorded[f"stat/{name}"]
    whole = ours.detach().double()
    assert abs(whole.mean() - mean) < 1e-4 * peak, f"mean of {name}"
    assert abs(whole.std() - std) < 1e-4 * peak, f"standard deviation of {name}"
    assert abs(whole.abs().max() - peak) < 1e-4 * peak, f"maximum of {name}"
    return difference(ours[0, ::channel, ::y, ::x], recorded[name]) / float(peak)


def match(boxes: Tensor, scores: Tensor, labels: Tensor, recorded: dict[str, np.ndarray], prefix: str) -> Matches:
    """Pair every recorded detection with the nearest of ours of the same label."""
    theirs = torch.from_numpy(recorded[f"{prefix}/boxes"])
    box_gap = (theirs[:, None] - boxes[None]).abs().amax(dim=2)
    score_gap = (torch.from_numpy(recorded[f"{prefix}/scores"])[:, None] - scores[None]).abs()
    other_label = torch.from_numpy(recorded[f"{prefix}/labels"])[:, None] != labels[None]
    gap = torch.where(other_label, torch.inf, box_gap + score_gap)
    best = gap.argmin(dim=1)
    rows = torch.arange(len(theirs))
    return Matches(best, box_gap[rows, best], score_gap[rows, best], gap[rows, best] < torch.inf)


def match_proposals(proposals: Proposals, recorded: np.ndarray) -> Matches:
    """Pair recorded proposals ``(n, 5)``, boxes and score, with ours."""
    labels = np.zeros(len(recorded), dtype=np.int64)
    rows = {"rpn/boxes": recorded[:, :4], "rpn/scores": recorded[:, 4], "rpn/labels": labels}
    own_labels = torch.zeros(len(proposals.boxes), dtype=torch.int64)
    return match(proposals.boxes, proposals.scores, own_labels, rows, "rpn")


class Matches:
    """Recorded detections against ours: ``ours (n,)`` indices and the gaps of each pair."""

    def __init__(self, ours: Tensor, box_gaps: Tensor, score_gaps: Tensor, same_label: Tensor) -> None:
        self.ours, self.box_gaps, self.score_gaps = ours, box_gaps, score_gaps
        self.good = same_label & (box_gaps < 2e-2) & (score_gaps < 5e-4)

    @property
    def share(self) -> float:
        """The share of recorded detections that ours contain."""
        return float(self.good.float().mean())

    def __str__(self) -> str:
        box, score = self.box_gaps[self.good].max(), self.score_gaps[self.good].max()
        return f"{self.share:.1%} matched, boxes to {box:.1e} px, scores to {score:.1e}"


def mask_area_excess(results: Instances, matches: Matches, areas: np.ndarray) -> float:
    """How far mask areas of matched pairs exceed 1 % + 3 pixels; negative is within."""
    assert results.masks is not None
    ours = results.masks.flatten(1).sum(dim=1)[matches.ours].double()
    theirs = torch.from_numpy(areas).double()
    excess = (ours - theirs).abs() - (0.01 * theirs + 3)
    return float(excess[matches.good].max())


def recorded_targets(seed: int, height: int, width: int) -> Targets:
    """The recordings' annotation of one image."""
    truth = fill.ground_truth(seed, height, width)
    return Targets(
        boxes=torch.from_numpy(truth["gt_bboxes"]),
        labels=torch.from_numpy(truth["gt_labels"]),
        masks=torch.from_numpy(truth["gt_masks"]).bool(),
        crowd=torch.from_numpy(truth["gt_bboxes_ignore"]),
        semantic=torch.from_numpy(truth["gt_semantic_seg"]),
    )
