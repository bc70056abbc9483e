"""The optional mmcv backend."""

from __future__ import annotations

import pytest
import torch

from dsctool.config.loading import load_config
from dsctool.errors import ConfigError
from dsctool.models.build import build_detector
from dsctool.ops.deform_conv import deformable_conv
from dsctool.ops.mmcv_backend import mmcv_deformable_conv, unavailable

SAC = ["model.backbone.sac={}", "model.backbone.weight_standardisation=true", "model.ops=mmcv"]
REASON = unavailable()


@pytest.mark.skipif(REASON is not None, reason=f"the optional backend is not installed: {REASON}")
def test_equals_the_default(device: torch.device) -> None:
    x, weight = torch.randn(2, 8, 13, 18, device=device), torch.randn(12, 8, 3, 3, device=device)
    offset = torch.randn(2, 18, 13, 18, device=device) * 3
    ours = deformable_conv(x, offset, weight, stride=1, padding=3, dilation=3)
    theirs = mmcv_deformable_conv(x, offset, weight, stride=1, padding=3, dilation=3)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(REASON is None, reason="mmcv is installed here")
def test_where_it_is_missing_the_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.ops=mmcv: mmcv\.ops cannot be imported"):
        build_detector(load_config("htc_tiny", SAC))
