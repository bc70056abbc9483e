"""``dsctool info``."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

import dsctool
from dsctool.cli.app import app


def test_names_versions_devices_and_backends() -> None:
    result = CliRunner().invoke(app, ["info"])
    assert result.exit_code == 0
    facts = {line.strip().partition("  ")[0]: line for line in result.stdout.splitlines()}
    assert dsctool.__version__ in facts["dsctool"]
    assert torch.__version__.partition("+")[0] in facts["torch"]
    assert facts["torchvision ops"].endswith("  ok")
    assert "logical cores" in facts["cpu"]


def test_as_json() -> None:
    sections = json.loads(CliRunner().invoke(app, ["info", "--json", "-"]).stdout)
    assert list(sections) == ["versions", "devices", "backends"]
    assert ("cuda:0" in sections["devices"]) == torch.cuda.is_available()


def test_says_why_a_backend_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module: str) -> None:
        raise ImportError(f"{module}: undefined symbol\nof something")

    monkeypatch.setattr("dsctool.cli.info.import_module", broken)
    backends = json.loads(CliRunner().invoke(app, ["info", "--json", "-"]).stdout)["backends"]
    assert backends["mmcv.ops (optional)"] == "not available: ImportError: mmcv.ops: undefined symbol of something"


def test_says_which_mmcv_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is none of the packages that are installed with this one."""
    monkeypatch.setattr("dsctool.cli.info.import_module", lambda module: SimpleNamespace(__version__="2.2.0"))
    backends = json.loads(CliRunner().invoke(app, ["info", "--json", "-"]).stdout)["backends"]
    assert backends["mmcv.ops (optional)"] == "ok, mmcv 2.2.0"
    assert backends["torchvision ops"] == "ok"
