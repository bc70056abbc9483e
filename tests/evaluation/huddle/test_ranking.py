"""The most crowded images."""

from __future__ import annotations

from typing import Any

from dsctool.evaluation.huddle.ranking import most_huddled


def truth(boxes: dict[int, list[list[float]]]) -> dict[str, Any]:
    numbered = [(image, box) for image, own in boxes.items() for box in own]
    return {
        "images": [{"id": image, "file_name": f"{image}.png"} for image in boxes],
        "categories": [{"id": 1, "name": "cup"}],
        "annotations": [
            {"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": box[2] * box[3]}
            for number, (image, box) in enumerate(numbered, start=1)
        ],
    }


def test_most_huddled_images_first_then_by_id() -> None:
    apart, together = [[0, 0, 10, 10], [30, 0, 10, 10]], [[0, 0, 10, 10], [2, 0, 10, 10]]
    content = truth({1: [], 2: together, 3: apart, 4: [*together, [1, 0, 10, 10]]})
    assert most_huddled(content, count=3) == ["4.png", "2.png", "1.png"]
    assert most_huddled(content, count=9) == ["4.png", "2.png", "1.png", "3.png"]
    assert most_huddled(content, count=2, t_o=0.8) == ["4.png", "1.png"]
