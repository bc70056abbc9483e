"""The configuration: frozen pydantic models, a unit on every field, unknown keys refused.

Shipped configurations are YAML files that fill this schema (see :mod:`dsctool.config.loading`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from dsctool.config.augment_schema import ColorConfig, CopyPasteConfig, CropConfig, JitterConfig
from dsctool.config.model_schema import (
    STUFFTHINGMAPS_CLASSES,
    Block,
    Fraction,
    Limit,
    ModelConfig,
    PositiveFloat,
    PositiveInt,
)
from dsctool.config.picture_schema import ImageRange, Page
from dsctool.config.tiles_schema import TilesConfig
from dsctool.terms import FusionRule, PixelRule, Precision


class PostprocessConfig(Block):
    """From scored boxes to results."""

    score_threshold: Fraction = 0.001
    """Results score more than this."""
    nms: Literal["box", "soft", "mask"] = "box"
    """``box``: drop by IoU of boxes, as published. ``soft``: weaken the score instead (soft-NMS, linear). ``mask``:
    drop by IoU of predicted masks, so that neighbours whose boxes overlap and whose masks do not both stay."""
    nms_iou: Fraction = 0.5
    """A result that overlaps a better one of its class by more than this is dropped (``soft``: weakened)."""
    mask_candidates: Limit = "auto"
    """With ``nms: mask``, masks are predicted for this many (RoI, class) candidates, the best by score."""
    max_per_image: Limit = "auto"
    """Results kept per image; ``auto`` fits the training data, here and above."""
    keep_candidates: Annotated[int, Field(ge=0)] = 0
    """For analysis: the best (RoI, class) candidates per image that are given beside the results, as they were before
    suppression. What ``--keep-candidates`` sets."""


class PanopticConfig(Block):
    """From instances and stuff to one segment for every pixel (``dsctool predict --panoptic``)."""

    rule: FusionRule = "published"
    """Whose way: ``published`` is COCO's panoptic API, by which DetectoRS was measured. ``detectron2``: the same, stuff
    in the order of its ids. ``mmdet``: a box NMS over all classes before."""
    min_score: Fraction | None = None
    """Instances that score less take no part; null: what the rule has, 0.5 (``mmdet``: 0.6)."""
    overlap: Fraction = 0.5
    """An instance of which better ones cover more than this share is left out."""
    stuff_area: Annotated[int, Field(ge=0)] = 4096
    """Stuff that has fewer pixels than this left is void."""
    pixel: PixelRule = "score"
    """Of instances that overlap, a pixel goes to the one with the higher ``score``, as published, or with the larger
    mask ``probability`` there."""
    labels: tuple[str, ...] | None = None
    """Names of the semantic maps' values from 0 on: those that are no class are stuff. Null: COCO-Stuff's. Training on
    other classes takes them from ``labels.txt`` beside the folders of maps, where there is one."""


# --- data ------------------------------------------------------------------------------------


class SplitConfig(Block):
    """One part of a data set. Paths are relative to ``--data``."""

    split: str | None = None
    """Name of the split: ``annotations/instances_<split>.json`` with ``<split>/``. Null: the only one that fits."""
    annotations: str | None = None
    """COCO JSON file, where the layout is not the standard one."""
    images: str | None = None
    """Folder of the images, where the layout is not the standard one."""
    semantic_maps: str | None = None
    """Folder of the stuff-and-thing PNGs; null: ``stuffthingmaps/<split>``."""
    weights: str | None = None
    """JSON file of image files and numbers: how often each is trained on in an epoch, on average; others once."""


class ResizeConfig(Block):
    """Resizing that keeps the aspect ratio."""

    short_sides: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (800,)
    """Target lengths of the shorter side, in pixels. Several: one is drawn per training image."""
    sample: Literal["choice", "range"] = "choice"
    """Draw one of the values, or any whole number between the smallest and the largest."""
    long_side: PositiveInt = 1333
    """The longer side never exceeds this, in pixels."""


class TTAConfig(Block):
    """Test-time augmentation: every image is seen in several views. The defaults are the ten of the DetectoRS paper."""

    short_sides: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (800, 1000, 1200, 1400, 1600)
    """Lengths of the shorter side, in pixels: a view of each."""
    long_side: PositiveInt | None = None
    """The longer side never exceeds this, in pixels; null: ``ratio`` times the shorter one."""
    ratio: Annotated[float, Field(ge=1)] = 1.5
    flip: bool = True
    """Every view also left for right."""
    merge: Literal["union", "average"] = "union"
    """``union``: suppression chooses among the detections of all views (the papers'). ``average``: boxes and scores of
    the same proposals are averaged over the views (mmdet's)."""

    @property
    def resizes(self) -> tuple[tuple[int, int], ...]:
        """The limits of the shorter and of the longer side, in pixels, of every size."""
        return tuple((short, self.long_side or round(self.ratio * short)) for short in self.short_sides)


SemanticData = Literal["stuffthingmaps", "instances", "none"]


class DataConfig(Block):
    """Images and annotations."""

    train: SplitConfig = SplitConfig()
    val: SplitConfig = SplitConfig()
    val_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Hold out this share of the training images, drawn by ``train.seed``, and evaluate on them in place of ``val``."""
    semantic: SemanticData = "instances"
    """Supervision of the semantic branch: COCO stuff maps, a map drawn from the instance masks, or no branch."""
    keep_empty: bool = True
    """Train on images without instances; published configurations drop them."""
    repeat_factor: Annotated[float, Field(gt=0, le=1)] | None = None
    """Images with rare classes come more often (LVIS): ``sqrt(this / share of the images with the class)`` times an
    epoch, where that is more than 1; null: every image once, as published. Multiplied by ``train.weights``."""
    on_error: Literal["fail", "skip"] = "fail"
    """Faulty images or annotations stop the command, or are left out and counted."""
    train_resize: ResizeConfig = ResizeConfig()
    test_resize: ResizeConfig = ResizeConfig()
    tta: TTAConfig | None = None
    """Test-time augmentation, in place of ``test_resize``: several times slower, and better."""
    tiles: TilesConfig | None = None
    """Images larger than this by windows, in training too; null: every image as a whole, as published."""
    flip: Fraction = 0.5
    """Probability of a horizontal flip in training."""
    jitter: JitterConfig | None = None
    """In place of ``train_resize``: large-scale jitter; null: none, as published, here and in the next three."""
    crop: CropConfig | None = None
    """Random crops of the training images."""
    color: ColorConfig | None = None
    """Random colours in training."""
    copy_paste: CopyPasteConfig | None = None
    """Instances of other training images, pasted."""
    pad_divisor: PositiveInt = 32
    """Canvas sides are multiples of this, in pixels."""
    image_range: ImageRange = "full"
    """What becomes 0 and 255. ``full``: the ends of the file's type, as published (of 16 bits the high byte stays).
    ``minmax``, ``percentile`` (1st and 99.8th, as StarDist has it): of each band of each image. ``[low, high]``: these
    values, in every image."""
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] | None = None
    """The bands, counted from 1, that become red, green and blue, or whatever ``model.backbone.in_channels`` takes; a
    band may come twice. Null: red, green and blue, grey three times, or all bands where there are as many."""
    page: Page = None
    """Which page of a file that has several, counted from 1; ``stack``: the bands of all pages, one after the other.
    Null: the first."""
    mean: Annotated[tuple[float, ...], Field(min_length=1)] = (123.675, 116.28, 103.53)
    """Subtracted from red, green, blue (0 to 255), or from every other channel of the network's input."""
    std: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] = (58.395, 57.12, 57.375)
    """Divides the channels after the mean is subtracted."""
    group_by_aspect: bool = True
    """Batches hold images of one orientation; with ``jitter`` all have the same canvas, and images of both."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Loader processes, which live as long as a run and load ahead; 0 loads in the main process."""

    @property
    def train_side(self) -> int:
        """The shorter side of training images, in pixels, where it is longest."""
        if self.jitter is not None:
            return self.jitter.size
        side = max(self.train_resize.short_sides)
        return side if self.crop is None else min(side, self.crop.size)

    @property
    def train_canvas(self) -> int:
        """Side of the square that training images are padded to, in pixels; 0 where it is as small as can be."""
        return 0 if self.jitter is None else self.jitter.size

    @property
    def test_resizes(self) -> tuple[tuple[int, int], ...]:
        """The limits of the shorter and of the longer side, in pixels, of every size in which images are tested."""
        if self.tta is not None:
            return self.tta.resizes
        return ((self.test_resize.short_sides[0], self.test_resize.long_side),)

    @model_validator(mode="after")
    def _one_test_size(self) -> Self:
        if len(self.test_resize.short_sides) != 1:
            raise ValueError("test_resize.short_sides takes exactly one value")
        return self

    @model_validator(mode="after")
    def _weights_for_training(self) -> Self:
        if self.val.weights is not None:
            raise ValueError("val.weights has no use: every image is measured once")
        return self

    @model_validator(mode="after")
    def _one_cut(self) -> Self:
        if self.jitter is not None and self.crop is not None:
            raise ValueError("jitter cuts images to its own size: leave out crop, or jitter")
        return self


# --- optimisation and run --------------------------------------------------------------------


class LrFactorsConfig(Block):
    """What the learning rate is multiplied by in the parts of a detector; 1: as published."""

    backbone: PositiveFloat = 1.0
    """Of every pass, with RFP's further ones."""
    neck: PositiveFloat = 1.0
    """FPN, and what else RFP has."""
    rpn: PositiveFloat = 1.0
    cascade: PositiveFloat = 1.0
    """All heads of all stages, and the semantic branch."""


class OptimConfig(Block):
    """Optimiser and learning-rate schedule."""

    kind: Literal["sgd", "adamw"] = "sgd"
    """``sgd``: as published. ``adamw``: reaches more in few steps when training from scratch."""
    lr: PositiveFloat = 0.02
    """Learning rate for ``reference_batch`` images a step."""
    reference_batch: PositiveInt = 16
    """Images per step that ``lr`` is meant for."""
    scale_lr: bool = True
    """Scale ``lr`` by effective batch / ``reference_batch``."""
    momentum: Fraction = 0.9
    """Momentum of SGD (beta 1 of AdamW)."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Share of the weights that each step takes off, times the learning rate."""
    decay_norms: bool = True
    """Also of biases, normalisation and other parameters of one dimension, as published; false: not of these."""
    clip_norm: PositiveFloat | None = 35.0
    """Gradients are scaled down to this norm; null: not clipped (HTC's published recipe)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Optimiser steps of linear warm-up."""
    warmup_factor: Fraction = 0.001
    """The warm-up starts at this share of the learning rate."""
    decay: Literal["milestones", "linear", "cosine"] = "milestones"
    """After the warm-up. ``milestones``: as published. ``linear``: to 0 at the end; best where training is short.
    ``cosine``: to 0 as well, in half a wave."""
    milestones: tuple[PositiveInt, ...] = (8, 11)
    """With ``decay: milestones``: epochs after which the learning rate is multiplied by ``gamma``."""
    gamma: PositiveFloat = 0.1
    """Factor of the learning rate at each milestone."""
    lr_factors: LrFactorsConfig = LrFactorsConfig()
    """Learning rates of the detector's parts."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each stage of a backbone learns at this share of the rate of the stage above it, and its last one at this share
    of the backbone's rate; 1: all alike, as published."""


Part = Literal["backbone", "neck", "cascade"]
PARTS: tuple[Part, ...] = get_args(Part)
"""The parts of a detector, as ``train.checkpoint_activations`` has them."""


class TrainConfig(Block):
    """The training run."""

    epochs: PositiveInt = 12
    """Passes over the training images, unless ``steps`` says how long the run is."""
    steps: PositiveInt | None = None
    """Optimiser steps of the whole run, in place of ``epochs``; evaluations and milestones still count in epochs."""
    batch_size: PositiveInt = 2
    """Images per forward pass and process."""
    accumulate: PositiveInt = 1
    """Forward passes per optimiser step; effective batch = batch_size x accumulate x processes."""
    loss_counts: Literal["own", "all"] = "own"
    """With several processes, losses are divided by what each process counts itself (samples, cells, pixels), as
    published, or by what all of them count: then several processes train as one with all their images would."""
    sync_batch_norm: bool = False
    """With several processes, batch norms over RoIs (DSC's fusion) take statistics over those of all processes; else
    each over its own, and the first one's are kept, as published."""
    precision: Precision = "float32"
    """What matrix products and convolutions of training compute in. Weights, losses and all that needs the digits stay
    float32, and so do evaluations: they give what ``dsctool eval`` gives. ``bfloat16`` has float32's range; ``float16``
    has not, so its losses are scaled, and steps that overflow all the same are skipped."""
    checkpoint_activations: bool | tuple[Part, ...] = False
    """Parts of the detector whose activations are not kept for the backward pass, which computes them again: less
    memory, more time, the same gradients. True: all parts."""
    masks_at_once: PositiveInt | None = None
    """RoIs whose mask logits are computed at a time, and once more for their gradients: less memory where there are
    many (DSC: all samples of a stage), the same gradients but for rounding; null: all."""
    max_skipped: PositiveInt = 20
    """With ``precision: float16``: the run stops when more steps than this have been skipped in a row."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes weights, sampling, augmentation and order."""
    weights: str | None = None
    """Checkpoint to start from (this project's or a published one), or null."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Measure and give the moving average of the weights, of which each step keeps this share (0.9998 for runs of days,
    0.99 to 0.999 for shorter ones); null: the weights themselves, as published."""
    partial_weights: bool = False
    """Accept weights that leave more than the heads (everything below ``cascade.``) uninitialised."""
    eval_interval: Annotated[int, Field(ge=0)] = 1
    """Epochs between evaluations; 0: never. The last epoch is always evaluated unless 0."""
    eval_max_dets: PositiveInt | Literal["auto"] = 100
    """Detections per image and class that an evaluation counts, those of highest score: COCO's 100. ``auto``: raised to
    the most instances of one class in one image, where that is more."""
    early_stop: PositiveInt | None = None
    """The run ends after so many evaluations in a row without a higher AP (of masks, else of boxes); null: never."""
    val_losses: bool = False
    """Evaluations also give the losses on the validation images, which need the annotation that training needs."""
    wandb: str | None = None
    """Weights & Biases project that gets the numbers too, or null; ``pip install 'dsctool[wandb]'``."""
    checkpoint_interval: PositiveInt = 1000
    """Optimiser steps between writes of ``last.pt``; it is also written after every epoch and on signals."""
    timeout: PositiveFloat = 600
    """Seconds that a batch may take to come from the loader processes, before the run says that they hang, and ends."""
    log_interval: PositiveInt = 50
    """Optimiser steps between lines of ``metrics.jsonl``."""

    @model_validator(mode="after")
    def _evaluations_to_look_at(self) -> Self:
        if self.eval_interval == 0:
            for key, wanted in (("early_stop", self.early_stop is not None), ("val_losses", self.val_losses)):
                if wanted:
                    raise ValueError(f"{key} looks at evaluations, and eval_interval=0 has none")
        return self

    @property
    def checkpointed_parts(self) -> tuple[Part, ...]:
        """``checkpoint_activations`` by name."""
        if isinstance(self.checkpoint_activations, bool):
            return PARTS if self.checkpoint_activations else ()
        return self.checkpoint_activations


class Config(Block):
    """Everything that defines an experiment."""

    schema_version: Literal[1] = 1
    """Counts changes of this schema that older files do not fit."""
    description: str = ""
    """One line for ``dsctool configs list``."""
    model: ModelConfig
    postprocess: PostprocessConfig = PostprocessConfig()
    panoptic: PanopticConfig = PanopticConfig()
    data: DataConfig = DataConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    @property
    def stuff_channels(self) -> int:
        """Of a semantic branch that learns stuff maps, where ``semantic.num_classes`` is null."""
        return max(STUFFTHINGMAPS_CLASSES, len(self.panoptic.labels or ()))

    @model_validator(mode="after")
    def _one_number_of_channels(self) -> Self:
        taken, data = self.model.backbone.in_channels, self.data
        examples = {"mean": ["114"] * taken, "std": ["58"] * taken, "channels": [str(n + 1) for n in range(taken)]}
        given = {"mean": data.mean, "std": data.std, "channels": data.channels}
        wrong = {name: len(values) for name, values in given.items() if values is not None and len(values) != taken}
        if wrong:
            counts = ", ".join(f"data.{name} has {count} value{'s' * (count > 1)}" for name, count in wrong.items())
            remedy = " ".join(f"data.{name}=[{','.join(examples[name])}]" for name in wrong)
            raise ValueError(
                f"{counts}, and model.backbone.in_channels is {taken}: give one for each channel, as in {remedy}"
            )
        return self

    @model_validator(mode="after")
    def _masks_for_mask_nms(self) -> Self:
        if self.postprocess.nms == "mask" and not self.model.cascade.has_masks:
            raise ValueError("postprocess.nms=mask needs a mask head: this model has boxes only")
        return self

    @model_validator(mode="after")
    def _masks_for_copy_paste(self) -> Self:
        if self.data.copy_paste is not None and not self.model.cascade.has_masks:
            raise ValueError("data.copy_paste needs masks, to cut instances out: this model learns boxes only")
        return self


SCHEMA_VERSION: int = Config.model_fields["schema_version"].default
"""Stored in every dumped configuration and checkpoint."""
