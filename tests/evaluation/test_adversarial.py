"""All numbers equal pycocotools' on sets that are made to break a matcher."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsctool.evaluation.coco import Evaluation, evaluate_all
from dsctool.evaluation.protocol import AreaRange, Protocol
from dsctool.terms import KINDS
from tests.evaluation.adversarial import adversarial_set
from tests.evaluation.oracle import COCO_AREAS, oracle

AREAS = (AreaRange("tiny", 0.0, 500.0), AreaRange("small", 500.0, 1024.0), AreaRange("rest", 1024.0, 9216.0))
PROTOCOLS = {
    "COCO's": Protocol(),
    "few": Protocol(max_dets=(3, 1, 2)),
    "all, other areas": Protocol(max_dets=(5, 1000), areas=AREAS),
}


def differences(evaluation: Evaluation, truth: Any, results: Any) -> list[Any]:
    """What is not pycocotools', with both values."""
    protocol, found = evaluation.protocol, []
    own = {f"_{area.name}": (area.low, area.high) for area in protocol.areas}
    areas = COCO_AREAS if protocol.areas == Protocol().areas else own
    for kind in KINDS:
        numbers, classes = oracle(truth, results, kind, max_dets=protocol.limits, areas=areas)
        measured = evaluation.stats[kind]
        assert measured is not None
        assert list(measured) == list(numbers)
        found += [(kind, name, measured[name], value) for name, value in numbers.items()]
        for row, expected in zip(evaluation.classes, classes, strict=True):
            own_numbers = row.bbox if kind == "bbox" else row.segm
            assert own_numbers is not None
            found += [(kind, row.name, name, own_numbers[name], value) for name, value in expected.items()]
    return [each for each in found if abs(each[-2] - each[-1]) > 1e-12]


@pytest.mark.parametrize("name", PROTOCOLS)
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_number_is_pycocotools(name: str, seed: int) -> None:
    truth, results = adversarial_set(seed)
    evaluation = evaluate_all(truth, results, protocol=PROTOCOLS[name])
    assert differences(evaluation, truth, results) == []
