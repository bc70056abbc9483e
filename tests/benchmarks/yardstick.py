"""Speed against torchvision's Mask R-CNN, measured in the same run on the same image.

    python -m tests.benchmarks.yardstick htc_r50_fpn_1x_coco detectors_htc_r50_1x_coco

One 480x640 image with three instances, the recordings' weights, median of three after a warm-up. A
training step is forward and backward, without the optimiser.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn

from dsctool.models.detector import Detector
from dsctool.structures import Targets
from tests.parity import fill
from tests.parity.published import filled_model, recorded_targets

SIZE = (480, 640)


def median_seconds(run: Callable[[], object], *, repeats: int = 3) -> float:
    """The median wall time of ``repeats`` calls after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def yardstick() -> nn.Module:
    """torchvision's Mask R-CNN with random weights and 1,000 proposals."""
    return maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=91,
        min_size=480,
        max_size=640,
        box_score_thresh=0.0,
        rpn_post_nms_top_n_test=1000,
    )


def yardstick_infers(model: nn.Module, image: Tensor) -> None:
    """One inference of the yardstick."""
    model.eval()
    with torch.no_grad():
        model([image[0]])


def yardstick_trains(model: nn.Module, image: Tensor, targets: Targets) -> None:
    """One training step of the yardstick."""
    model.train()
    model.zero_grad()
    assert targets.masks is not None
    truth = {"boxes": targets.boxes, "labels": targets.labels, "masks": targets.masks.to(torch.uint8)}
    sum(model([image[0]], [truth]).values()).backward()


def infers(model: Detector, image: Tensor) -> None:
    """One inference, masks pasted."""
    model.predict(image)


def trains(model: Detector, image: Tensor, targets: Targets) -> None:
    """One training step."""
    model.train()
    model.zero_grad()
    torch.stack(list(model.losses(image, [targets]).values())).sum().backward()


def measure(name: str, image: Tensor, targets: Targets) -> str:
    """Seconds and ratios of one configuration; the yardstick is measured before and after, as machines drift."""
    reference, model = yardstick(), filled_model(name).eval()

    def beside(run: Callable[[], object], unit: Callable[[], object]) -> str:
        before = median_seconds(unit)
        seconds = median_seconds(run)
        unit_seconds = (before + median_seconds(unit)) / 2
        return f"{seconds:.2f} s = {seconds / unit_seconds:.2f} yardsticks of {unit_seconds:.2f} s"

    infer = beside(lambda: infers(model, image), lambda: yardstick_infers(reference, image))
    train = beside(lambda: trains(model, image, targets), lambda: yardstick_trains(reference, image, targets))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"{name}: infer {infer}, train {train}, peak memory {peak:.1f} GiB"


def main() -> None:
    """Print seconds and ratios of every configuration named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    image, targets = torch.from_numpy(fill.image(0, *SIZE)), recorded_targets(0, *SIZE)
    for name in arguments.configs:
        print(measure(name, image, targets))


if __name__ == "__main__":
    main()
