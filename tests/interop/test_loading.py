"""Loading weights made elsewhere."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision

from dsctool.errors import CheckpointError
from dsctool.interop.loading import inflated, load_backbone_weights, load_weights, read_state_dict
from dsctool.models.backbones.resnet import ResNet
from dsctool.models.detector import Detector
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


def of_channels(name: str, channels: int) -> Detector:
    """A tiny detector of that many channels, its weights away from where training starts."""
    each = f"[{','.join(['100'] * channels)}]"
    words = [f"model.backbone.in_channels={channels}", f"data.mean={each}", f"data.std={each}"]
    model = tiny_detector(name, words, seed=channels)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return model.eval()


@pytest.mark.parametrize("name", ["dsc_tiny", "detectors_tiny"])  # the second one's first layers are standardised
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_first_layers_are_inflated_to_other_channels(name: str, channels: int) -> None:
    colours, model = of_channels(name, 3), of_channels(name, channels)
    report = load_weights(model, colours.state_dict(), source="colours")
    stems = ["backbone.conv1.weight"] + ["rfp.backbones.0.conv1.weight"] * (name == "detectors_tiny")
    assert list(report.inflated) == stems
    assert report.missing == report.unexpected == report.reshaped == ()
    assert f"{len(stems)} inflated from 3 channels" in report.lines()[0]
    grey = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected, found = (
            each.extract_features(grey.repeat(1, n, 1, 1)) for each, n in ((colours, 3), (model, channels))
        )
    for left, right in zip(expected, found, strict=True):
        assert torch.allclose(left, right, atol=1e-4 * float(left.abs().max()))


def test_colours_keep_their_filters() -> None:
    weight = torch.randn(4, 3, 7, 7)
    assert torch.equal(inflated(weight, 6)[:, :3], weight / 2)
    assert torch.allclose(inflated(weight, 6)[:, 3:].sum(1), weight.sum(1) / 2, atol=1e-6)
    assert torch.allclose(inflated(weight, 1)[:, 0], weight.sum(1), atol=1e-6)


def test_others_than_colours_are_not_inflated() -> None:
    with pytest.raises(CheckpointError, match=r"backbone\.conv1\.weight"):
        load_weights(of_channels("htc_tiny", 4), of_channels("htc_tiny", 2).state_dict(), source="two.pt")


def test_a_backbone_for_other_channels_takes_published_weights(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet18(weights=None).state_dict()
    torch.save(theirs, tmp_path / "resnet18.pth")
    backbone = ResNet(depth=18, in_channels=4)
    report = load_backbone_weights(backbone, str(tmp_path / "resnet18.pth"))
    assert report.inflated == ("conv1.weight",)
    assert torch.equal(backbone.conv1.weight, inflated(theirs["conv1.weight"], 4))


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
