"""Where time and arithmetic go: what passes on a clock belongs to the innermost stage that is running."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dsctool.engine.inference import Runnable
from dsctool.interop.exported import ExportedDetector
from dsctool.models.cascades.dsc import DSC
from dsctool.models.detector import Detector

Mark = TypeVar("Mark")


class Clock(Protocol[Mark]):
    """Something that only goes up."""

    def now(self) -> Mark:
        """Where it stands."""

    def between(self, first: Mark, second: Mark) -> float:
        """What passed from one mark to a later one."""


class WallClock:
    """Seconds of this process."""

    def now(self) -> float:
        """As the monotonic clock has it."""
        return time.perf_counter()

    def between(self, first: float, second: float) -> float:
        """Seconds."""
        return second - first


class CudaClock:
    """Seconds of a GPU's stream, by events: the host never waits between stages."""

    def now(self) -> torch.cuda.Event:
        """An event in the current stream."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        """Seconds; waits for the second event."""
        second.synchronize()
        return float(first.elapsed_time(second)) / 1000


@dataclass(frozen=True)
class FlopClock:
    """Floating-point operations of convolutions and matrix products, a multiplication and an addition each for one."""

    counter: FlopCounterMode

    def now(self) -> int:
        """All so far."""
        return self.counter.get_total_flops()

    def between(self, first: int, second: int) -> float:
        """Operations."""
        return float(second - first)


class Stages(Generic[Mark]):
    """What passes on a clock while something runs, by stage, in the order in which stages first ended."""

    def __init__(self, clock: Clock[Mark]) -> None:
        self._clock = clock
        self._open: list[str] = []
        self._whole: str | None = None
        self._spans: list[tuple[str, Mark, Mark]] = []
        self._ended: dict[str, None] = {}
        self._since = clock.now()

    @contextmanager
    def stage(self, name: str, *, whole: bool = False) -> Iterator[None]:
        """A stage. whole: the stages inside are not told apart from it."""
        if self._whole is not None:
            yield
            return
        self._turn()
        self._open.append(name)
        self._whole = name if whole else None
        try:
            yield
        finally:
            self._whole = None
            self._turn()
            self._ended[self._open.pop()] = None

    def spent(self) -> dict[str, float]:
        """What each stage that has ended took, without the stages inside it."""
        totals = dict.fromkeys(self._ended, 0.0)
        for name, first, second in self._spans:
            totals[name] += self._clock.between(first, second)
        return totals

    def _turn(self) -> None:
        now = self._clock.now()
        if self._open:
            self._spans.append((self._open[-1], self._since, now))
        self._since = now


@dataclass(frozen=True)
class _Span:
    """A method that is a stage; ``name`` may follow from its first argument, the stage's or the pass's number."""

    owner: nn.Module
    method: str
    name: str | Callable[[int], str]
    whole: bool = False


@contextmanager
def told_apart(model: Runnable, stages: Stages[Any]) -> Iterator[None]:
    """Inside, whatever ``model`` computes, at inference or in training, is told apart by ``stages``.

    What is exported is one stage.
    """
    with ExitStack() as undo:
        for span in [] if isinstance(model, ExportedDetector) else _spans(model):
            setattr(span.owner, span.method, _timed(span, stages))
            undo.callback(delattr, span.owner, span.method)  # the class's own shows again
        yield


def _spans(model: Detector) -> list[_Span]:
    """In the order of the work."""
    cascade: Any = model.cascade
    mask_heads: Sequence[nn.Module] = getattr(cascade, "mask_heads", ())
    semantic: nn.Module | None = getattr(cascade, "semantic_head", None)
    spans = [_Span(model.backbone, "forward", "backbone"), _Span(model.neck, "forward", "neck")]
    if model.rfp is not None:
        spans.append(_Span(model.rfp, "further_pass", lambda i: f"RFP pass {i + 2}", whole=True))
    spans += [_Span(model.rpn, "propose", "proposals"), _Span(model.rpn, "losses", "proposals")]
    if semantic is not None:
        spans.append(_Span(semantic, "forward", "semantic branch"))
    if isinstance(cascade, DSC):
        spans.append(_Span(cascade, "stage", lambda t: f"stage {t + 1}"))
    else:
        spans += [_Span(stage, "forward", f"stage {t}") for t, stage in enumerate(cascade.box_stages, start=1)]
    return [
        *spans,
        _Span(model, "score", "between stages"),
        _Span(model, "_detect_from", "suppression"),
        *(_Span(head, name, "masks") for head in mask_heads for name in ("feature", "predict_classes")),
        _Span(model, "roi_masks", "masks", whole=True),
        _Span(model, "masks_for", "masks", whole=True),
        _Span(cascade, "losses", "samples, losses"),
    ]


def _timed(span: _Span, stages: Stages[Any]) -> Callable[..., Any]:
    original = getattr(span.owner, span.method)

    def run(*arguments: Any, **named: Any) -> Any:
        name = span.name if isinstance(span.name, str) else span.name(arguments[0])
        with stages.stage(name, whole=span.whole):
            return original(*arguments, **named)

    return run
