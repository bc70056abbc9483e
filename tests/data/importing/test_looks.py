"""What a folder looks like, where it is none of the kinds that other tests write."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from dsctool.data.importing.looks import import_hint, looks_like


def test_nothing_is_recognised_in_what_is_nothing(tmp_path: Path) -> None:
    assert import_hint(tmp_path) is None
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("a note\n")
    (tmp_path / "b.json").write_text('{"some": "thing"}')
    (tmp_path / "c.xml").symlink_to(tmp_path / "nowhere.xml")
    (tmp_path / "link").symlink_to(tmp_path)
    assert looks_like(tmp_path) is None


def test_lists_behind_many_images_are_seen(tmp_path: Path) -> None:
    """A COCO file's other lists begin where its images end."""
    images = [{"id": number, "file_name": f"{number:08d}.jpg", "width": 1, "height": 1} for number in range(3000)]
    content = {"images": images, "annotations": [], "categories": []}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert (
        import_hint(tmp_path)
        == f"it looks like COCO in another layout: dsctool data import coco {tmp_path} --output NEW"
    )
