"""Loading weights made elsewhere."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision

from dsctool.errors import CheckpointError
from dsctool.interop.loading import load_backbone_weights, load_weights, read_state_dict
from dsctool.models.backbones.resnet import ResNet
from tests.models.tiny import tiny_detector


def test_other_classes_leave_only_the_heads_at_random() -> None:
    model, other = tiny_detector(seed=1), tiny_detector(overrides=["model.num_classes=5"], seed=2)
    report = load_weights(model, other.state_dict(), source="other")
    assert torch.equal(model.state_dict()["backbone.conv1.weight"], other.state_dict()["backbone.conv1.weight"])
    assert report.missing == report.unexpected == ()
    assert report.reshaped
    assert {name.split(".")[-2] for name in report.reshaped} == {"classifier", "logits"}
    assert report.lines()[0].startswith(f"{len(report.loaded)} loaded, 0 missing, 0 unexpected, ")


def test_more_than_the_heads_is_refused_unless_accepted() -> None:
    model, wider = tiny_detector(), tiny_detector(overrides=["model.neck.channels=24"])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"wider\.pt.*neck\.(.|\n)*train\.partial_weights=true"):
        load_weights(model, wider.state_dict(), source="wider.pt")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    report = load_weights(model, wider.state_dict(), source="wider.pt", allow_partial=True)
    assert any(name.startswith("neck.") for name in report.reshaped)


@pytest.mark.parametrize("wrapped", [True, False])
def test_backbone_from_a_file(tmp_path: Path, wrapped: bool) -> None:
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    path = tmp_path / "resnet18.pth"
    torch.save({"state_dict": theirs} if wrapped else theirs, path)
    model = ResNet(depth=18)
    report = load_backbone_weights(model, str(path))
    assert report.missing == report.reshaped == report.unexpected == ()
    assert torch.equal(model.layer3[1].conv2.weight, theirs["layer3.1.conv2.weight"])


def test_backbone_of_another_depth_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    with pytest.raises(CheckpointError, match="depth"):
        load_backbone_weights(ResNet(depth=50), str(path))


def test_unknown_name_and_failed_download_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="neither a file nor a torchvision weight enum"):
        load_backbone_weights(ResNet(depth=18), "resnet18.pht")

    def no_network(*_: object, **__: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", no_network)
    with pytest.raises(CheckpointError, match=r"no route to host(.|\n)*model\.backbone\.weights=null"):
        load_backbone_weights(ResNet(depth=18), "ResNet18_Weights.IMAGENET1K_V1")


def test_files_that_are_not_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_state_dict(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(CheckpointError, match=r"text\.pth"):
        read_state_dict(tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no mapping"):
        read_state_dict(tmp_path / "list.pth")
