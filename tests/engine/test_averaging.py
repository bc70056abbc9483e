"""The moving average of weights against its definition, number by number."""

from __future__ import annotations

import copy

import pytest
import torch

from dsctool.engine.averaging import moving_average
from dsctool.models.detector import Detector
from tests.models.tiny import tiny_detector


@pytest.fixture
def model() -> Detector:
    return tiny_detector("dsc_tiny")


def changed(model: Detector, seed: int) -> None:
    """As by a step of training."""
    generator = torch.Generator().manual_seed(seed)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand(value.shape, generator=generator))
        else:
            value.add_(1)


@pytest.mark.parametrize("decay", [0.05, 0.3, 0.9998])
def test_by_its_definition(model: Detector, decay: float) -> None:
    average = moving_average(model, decay)
    wanted: dict[str, torch.Tensor] = {}
    for update in range(6):
        changed(model, update)
        average.update_parameters(model)
        keeps = 0.0 if update == 0 else min(decay, (1 + update) / (10 + update))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                now = value.double().clone()
                wanted[name] = now if update == 0 else keeps * wanted[name] + (1 - keeps) * now
            else:
                wanted[name] = value.clone()
    found = average.module.state_dict()
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        torch.testing.assert_close(value.double(), wanted[name].double(), rtol=1e-5, atol=1e-6, msg=name)


def test_goes_on_where_it_was(model: Detector) -> None:
    whole = moving_average(model, 0.9)
    for update in range(3):
        changed(model, update)
        whole.update_parameters(model)
    again = moving_average(model, 0.9, updates=3)
    again.module.load_state_dict(whole.module.state_dict())
    changed(model, 3)
    whole.update_parameters(model)
    again.update_parameters(model)
    for name, value in whole.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name


def test_the_model_is_left_alone(model: Detector) -> None:
    changed(model, 0)
    before = copy.deepcopy(model.state_dict())
    average = moving_average(model, 0.9)
    average.update_parameters(model)
    changed(average.module, 1)  # type: ignore[arg-type]
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert any(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
