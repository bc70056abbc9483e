"""DSC and F-DSC at inference against the recordings of the published models. Run with ``-s`` to see the differences."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as coco_mask
from torch import Tensor

from dsctool.models.cascades.dsc import DSC, Guidance
from dsctool.models.detector import Detector
from dsctool.models.postprocess import Postprocess, Selected
from dsctool.models.roi.extractors import roi_feature
from dsctool.models.roi.semantic_head import semantic_roi_feature
from dsctool.models.roi.shape_guidance import enlarge_rois, relative_boxes, relative_roi_align, shape_guided_roi_align
from dsctool.ops.masks import encode_masks
from dsctool.ops.roi_align import boxes_to_rois, pyramid_roi_align, roi_levels
from dsctool.structures import Detections, Proposals
from tests.conftest import RECORDINGS
from tests.parity import fill
from tests.parity.published import difference, filled_model, match_proposals

MAPS = 1e-4
"""Largest difference of a map or feature, relative to its maximum."""
STRIDES = (4, 8, 16, 32)


class Found(NamedTuple):
    """kept: which of the candidates."""

    detections: Detections
    kept: Selected


class Staged(NamedTuple):
    """refined: the RoIs of the stage, moved by its deltas."""

    rois: Tensor
    guidance: Guidance
    logits: Tensor
    deltas: Tensor
    refined: Tensor


@dataclass(frozen=True)
class Case:
    """One recorded model, its image and what it gives on the way to the proposals."""

    model: Detector
    arrays: dict[str, np.ndarray]
    slices: dict[str, str]
    mask_rles: dict[str, list[dict[str, object]]]
    image: Tensor
    features: list[Tensor]
    semantic: Tensor
    runs: dict[str, Found] = field(default_factory=dict)

    @property
    def cascade(self) -> DSC:
        cascade = self.model.cascade
        assert isinstance(cascade, DSC)
        return cascade

    def found(self, prefix: str) -> Found:
        """What is detected, by the name of its recording; the forward pass is slow, and done once."""
        if prefix not in self.runs:
            self.runs[prefix] = self._run(prefix)
        return self.runs[prefix]

    def _run(self, prefix: str) -> Found:
        kept: list[Selected] = []
        original = Postprocess.select

        def spy(postprocess: Postprocess, boxes: Sequence[Tensor], scores: Sequence[Tensor]) -> list[Selected]:
            kept.extend(original(postprocess, boxes, scores))
            return kept

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Postprocess, "select", spy)
            if prefix == "e2e":
                p, rows = self.proposals, self.taken
                taken = replace(p, boxes=p.boxes[rows], scores=p.scores[rows])
                patch.setattr(self.model.rpn, "propose", lambda *_: [taken])
                (detections,) = self.model.detect(self.image)
            else:
                original_size = {"fixed": (160, 192), "rescaled": (120, 144)}[prefix]
                proposals = [torch.from_numpy(self.arrays["fixed_proposals"])]
                (detections,) = self.model.detect_from(self.features, proposals, [(160, 192)], [original_size])
        return Found(detections, kept[0])

    @cached_property
    def proposals(self) -> Proposals:
        """The model's own."""
        return self.model.rpn.propose(self.features, [(160, 192)])[0]

    @cached_property
    def taken(self) -> Tensor:
        """Rows of the proposals that ``e2e`` takes: all of them would take half a minute.

        Hence those that the recorded detections came from, and every sixteenth of DSC's, every fourth of F-DSC's: what
        any other is detected as has no place among the best 100, nor does it suppress what has.
        """
        every = 4 if self.cascade.mask_roi_size < 14 else 16
        ours = match_proposals(self.proposals, self.arrays["rpn_proposals"]).ours
        others = torch.arange(0, len(self.proposals.boxes), every)
        return torch.cat([ours[self.arrays["e2e.det_roi_inds"]], others]).unique()

    @cached_property
    def stages(self) -> list[Staged]:
        """What the box stages make of the recorded proposals."""
        boxes, previous, found = [torch.from_numpy(self.arrays["fixed_proposals"])], None, []
        for t, stage in enumerate(self.cascade.box_stages):
            rois = boxes_to_rois(boxes)
            guidance, logits, deltas = self.cascade.stage(t, self.features, self.semantic, rois, previous)
            boxes, previous = stage.refine(boxes, deltas, [(160, 192)]), guidance
            found.append(Staged(rois, guidance, logits, deltas, boxes_to_rois(boxes)))
        return found

    def gap(self, ours: Tensor, name: str) -> float:
        """Largest difference on the recorded part, relative to the whole array's maximum."""
        peak = float(self.arrays[f"stat.{name}"][2])
        assert abs(float(ours.abs().max()) - peak) <= 1e-4 * peak, f"maximum of {name}"
        return difference(ours[recorded_part(self.slices[name])], self.arrays[name]) / max(peak, 1e-12)


def recorded_part(text: str) -> tuple[slice, ...]:
    """``[:, ::2]`` as slices."""
    parts = [] if text == "full" else text.strip("[]").split(",")
    return tuple(slice(*(int(x) if x.strip() else None for x in part.split(":"))) for part in parts)


@pytest.fixture(scope="module", params=["dsc_r50_fpn_1x_coco", "fast_dsc_r50_fpn_1x_coco"])
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    with np.load(RECORDINGS / "dsc" / f"{request.param}.forward.npz") as file:
        arrays = dict(file)
    entries = json.loads((RECORDINGS / "dsc" / f"{request.param}.forward.json").read_text())
    described = entries["arrays"]
    image = torch.from_numpy(fill.image(0, 160, 192))
    with torch.no_grad():
        model = filled_model(request.param)
        features = model.extract_features(image)
        assert isinstance(model.cascade, DSC)
        assert model.cascade.semantic_head is not None
        yield Case(
            model=model,
            arrays=arrays,
            slices={name: value["slice"] for name, value in described.items() if isinstance(value, dict)},
            mask_rles={name: value for name, value in described.items() if isinstance(value, list)},
            image=image,
            features=features,
            semantic=model.cascade.semantic_head(features)[1],
        )


def test_maps(case: Case) -> None:
    model, head = case.model, case.cascade.semantic_head
    assert head is not None
    logits, deltas = model.rpn(case.features)
    maps = {f"c{i + 2}": x for i, x in enumerate(model.backbone(case.image))}
    maps |= {f"p{i + 2}": x for i, x in enumerate(case.features)}
    maps |= {f"rpn_cls.{i}": x for i, x in enumerate(logits)} | {f"rpn_reg.{i}": x for i, x in enumerate(deltas)}
    maps |= {"semantic_feat": case.semantic, "semantic_pred": head.predict(head(case.features)[0])}
    gaps = {name: case.gap(x, name) for name, x in maps.items()}
    print(f"maps to {max(gaps.values()):.1e} of their maximum")
    assert {name: gap for name, gap in gaps.items() if gap > MAPS} == {}


def test_proposals(case: Case) -> None:
    ours = case.proposals
    found = match_proposals(ours, case.arrays["rpn_proposals"])
    moved = (found.ours - torch.arange(len(found.ours))).abs().max()
    print(f"proposals: {found}, order to {moved} places")
    assert len(ours.boxes) == len(found.ours) == len(found.ours.unique())
    assert found.share == 1
    assert moved <= 1, "only neighbours of equal score may change places"


def test_stages(case: Case) -> None:
    previous: Guidance | None = None
    gaps: dict[str, float] = {}
    for t, (rois, guidance, logits, deltas, refined) in enumerate(case.stages):
        pieces = stage_pieces(case, t, rois, guidance, previous)
        pieces |= {"mpn_logits": guidance.mask_logits[:, None], "mpn_feat": guidance.feature}
        pieces |= {"cls_score": logits, "bbox_pred": deltas}
        if t < 2:
            pieces["refined_rois"] = refined
        levels = roi_levels(pieces["bbox_enlarged_rois"][:, 1:], num_levels=4)
        assert levels.tolist() == case.arrays[f"s{t}.sg_levels"].tolist()
        gaps |= {f"s{t}.{name}": case.gap(x, f"s{t}.{name}") for name, x in pieces.items()}
        previous = guidance
    print(f"stages to {max(gaps.values()):.1e} of the maximum ({max(gaps, key=lambda name: gaps[name])})")
    assert {name: gap for name, gap in gaps.items() if gap > MAPS} == {}
    recorded = {name for name in case.slices if name[0] == "s" and name[2] == "."} - {"s0.sg_levels"}
    assert {name for name in recorded if not name.endswith("sg_levels")} <= gaps.keys()


def stage_pieces(case: Case, t: int, rois: Tensor, guidance: Guidance, previous: Guidance | None) -> dict[str, Tensor]:
    """What goes into the heads of a stage, by its recorded name."""
    cascade, stage = case.cascade, case.cascade.box_stages[t]
    size = cascade.mask_roi_size
    box_rois = guidance.rois if t < 2 else rois
    probs = guidance.mask_logits.sigmoid()
    semantic7 = semantic_roi_feature(case.semantic, rois, output_size=7)
    after = shape_guided_roi_align(case.features, box_rois, probs, output_size=7, plus_one=True)
    assert stage.head.fusion is not None
    pieces = {
        "rois": rois,
        "mpn_enlarged_rois": guidance.rois,
        "bbox_enlarged_rois": box_rois,
        "semantic_roi_feat": semantic_roi_feature(case.semantic, rois, output_size=14),
        "mpn_roi_feat": roi_feature(case.features, None, guidance.rois, output_size=size),
        "mpn_input": roi_feature(case.features, case.semantic, guidance.rois, output_size=size, semantic_rois=rois),
        "sg_mask7": F.adaptive_avg_pool2d(probs[:, None], 7),
        "sg_feat_before": pyramid_roi_align(case.features[:4], box_rois, output_size=7, strides=STRIDES),
        "sg_feat_after": after,
        "bbox_head_input": after + semantic7,
        "bbox_head_fused": stage.head.fusion(after + semantic7, guidance.feature),
    }
    if previous is not None:
        relative = relative_boxes(guidance.rois[:, 1:], previous.rois[:, 1:], (size, size))
        rows = torch.arange(len(rois), dtype=torch.float32)[:, None]
        pieces |= {
            "rel_from_rois": previous.rois,
            "rel_to_rois": guidance.rois,
            "rel_rois": torch.cat([rows, relative], dim=1),
            "rel_aligned_feat": relative_roi_align(previous.feature, previous.rois, guidance.rois, output_size=size),
        }
    return pieces


@pytest.mark.parametrize("prefix", ["fixed", "rescaled", "e2e"])
def test_detections(case: Case, prefix: str) -> None:
    check_detections(case, prefix, case.found(prefix).detections)


def check_detections(case: Case, prefix: str, found: Detections) -> None:
    theirs = case.arrays[f"{prefix}.det_bboxes"]
    assert len(found) == len(theirs)
    labels = torch.from_numpy(case.arrays[f"{prefix}.det_labels"])
    gap = (torch.from_numpy(theirs[:, None, :4]) - found.boxes[None]).abs().amax(dim=2)
    gap = torch.where(labels[:, None] == found.labels[None], gap, torch.inf)
    score_gap = (torch.from_numpy(theirs[:, None, 4]) - found.scores[None]).abs()
    rows = (gap + score_gap).argmin(dim=1)
    assert len(rows.unique()) == len(rows), "two recorded detections match one of ours"
    index = torch.arange(len(rows))
    boxes, scores = gap[index, rows].max(), score_gap[index, rows].max()
    assert found.mask_probs is not None
    masks = encode_masks(found.mask_probs[rows], found.boxes[rows], found.size)
    areas = np.abs(coco_mask.area(masks).astype(float) - case.arrays[f"{prefix}.mask_areas"])
    print(f"{prefix}: boxes to {boxes:.1e} px, scores to {scores:.1e}, mask areas to {areas.max():.0f} px")
    assert boxes < 1e-3
    assert scores < 1e-4
    assert (areas <= np.maximum(3, 0.01 * case.arrays[f"{prefix}.mask_areas"])).all()
    for ours, recorded in zip(masks, case.mask_rles.get(f"{prefix}.mask_rle", []), strict=False):
        assert float(coco_mask.iou([ours], [recorded], [False])[0, 0]) >= 0.99 or coco_mask.area(ours) == 0


@pytest.mark.parametrize("prefix", ["fixed", "e2e"])
def test_kept_rois(case: Case, prefix: str) -> None:
    kept = case.found(prefix).kept
    rows = case.taken[kept.rois] if prefix == "e2e" else kept.rois
    ours = set(zip(rows.tolist(), kept.labels.tolist(), strict=True))
    rois = torch.from_numpy(case.arrays[f"{prefix}.det_roi_inds"])
    if prefix == "e2e":  # proposals of equal score may change places
        rois = match_proposals(case.proposals, case.arrays["rpn_proposals"]).ours[rois]
    assert ours == set(zip(rois.tolist(), case.arrays[f"{prefix}.det_labels"].tolist(), strict=True))


def test_final_mask_stage(case: Case) -> None:
    cascade = case.cascade
    rows = torch.from_numpy(case.arrays["fixed.det_roi_inds"])
    rois = torch.from_numpy(case.arrays["fixed.mask_rois"])
    guidance = case.stages[-1].guidance[rows]
    x = roi_feature(case.features, None, rois, output_size=14)
    aligned = relative_roi_align(guidance.feature, guidance.rois, rois, output_size=cascade.mask_roi_size)
    mask_input = x + semantic_roi_feature(case.semantic, rois, output_size=14)
    logits = cascade.mask_head.predict(cascade.mask_head.feature(mask_input, aligned))
    own = cascade.final_masks(
        case.features, case.semantic, rois, torch.from_numpy(case.arrays["fixed.det_labels"]), guidance
    )
    pieces = {
        "mask_rel_from_rois": guidance.rois,
        "mask_roi_feat": x,
        "mask_rel_aligned_feat": aligned,
        "mask_logits": logits,
    }
    gaps = {name: case.gap(value, f"fixed.{name}") for name, value in pieces.items() if f"fixed.{name}" in case.slices}
    gaps["mask_logits_of_label"] = difference(own[:24], case.arrays["fixed.mask_logits_of_label"])
    print(f"final mask stage: {gaps}")
    assert max(gaps.values()) < 1e-3
    assert torch.equal(enlarge_rois(rois, 1.0), rois)
