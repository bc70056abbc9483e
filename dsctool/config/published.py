"""What is published about the shipped configurations: average precision on COCO, and files of weights.

One scale, no flip. Sources: the model zoo of mmdet 2.28.2 (its READMEs where the zoo's index lacks a file), and the
READMEs of the DetectoRS and DSC authors.
"""

from __future__ import annotations

from typing import Literal, NamedTuple


class Published(NamedTuple):
    """box, mask: AP, from 0 to 100; mask is None where there are none. file: the end of its address, or its name.

    memory: of training, GB a GPU, where it is known. by: whose it is. split: of COCO, on which AP was measured;
    test-dev has no public ground truth, and numbers on val2017 differ from it.
    """

    box: float
    mask: float | None
    file: str
    memory: float | None = None
    by: str = "mmdet"
    split: Literal["val2017", "test-dev"] = "val2017"

    @property
    def file_name(self) -> str:
        """What a download is called."""
        return self.file.rpartition("/")[2]


_DCONV = "fpn_dconv_c3-c5_mstrain_400_1400_16x1_20e_coco"

PUBLISHED: dict[str, Published] = {
    "cascade_rcnn_r50_fpn_1x_coco": Published(
        40.3, None, "cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco/cascade_rcnn_r50_fpn_1x_coco_20200316-3dc56deb.pth"
    ),
    "cascade_mask_rcnn_r50_fpn_1x_coco": Published(
        41.2,
        35.9,
        "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_coco/cascade_mask_rcnn_r50_fpn_1x_coco_20200203-9d4dcb24.pth",
    ),
    **{
        name: Published(box, mask, f"htc/{name}/{name}_{tail}.pth", memory)
        for name, box, mask, tail, memory in (
            ("htc_r50_fpn_1x_coco", 42.3, 37.4, "20200317-7332cf16", 8.2),
            ("htc_r50_fpn_20e_coco", 43.3, 38.3, "20200319-fe28c577", 8.2),
            ("htc_r101_fpn_20e_coco", 44.8, 39.6, "20200317-9b41b48f", 10.2),
            ("htc_x101_32x4d_fpn_16x1_20e_coco", 46.1, 40.5, "20200318-de97ae01", 11.4),
            ("htc_x101_64x4d_fpn_16x1_20e_coco", 47.0, 41.4, "20200318-b181fd7a", 14.5),
            (f"htc_x101_64x4d_{_DCONV}", 50.4, 43.8, "20200312-946fd751", None),
        )
    },
    **{
        name: Published(box, mask, f"detectors/{name}/{name}{tail}.pth", memory)
        for name, box, mask, tail, memory in (
            ("cascade_rcnn_r50_rfp_1x_coco", 44.8, None, "-8cf51bfd", 7.5),
            ("cascade_rcnn_r50_sac_1x_coco", 45.0, None, "-24bfda62", 5.6),
            ("detectors_cascade_rcnn_r50_1x_coco", 47.4, None, "-32a10ba0", 9.9),
            ("htc_r50_rfp_1x_coco", 46.6, 40.9, "-8ff87c51", 11.2),
            ("htc_r50_sac_1x_coco", 46.4, 40.9, "-bfa60c54", 9.3),
            ("detectors_htc_r50_1x_coco", 49.1, 42.6, "-329b1453", 13.6),
            ("detectors_htc_r101_20e_coco", 50.5, 43.9, "_20210419_203638-348d533b", 19.6),
        )
    },
    **{
        name: Published(box, mask, file, by="DetectoRS's authors", split="test-dev")
        for name, box, mask, file in (
            ("detectors_htc_r50_mstrain_40e_coco", 51.3, 44.4, "DetectoRS_R50-0f1c8080.pth"),
            ("detectors_htc_x101_32x4d_mstrain_40e_coco", 53.3, 45.8, "DetectoRS_X101-ed983634.pth"),
        )
    },
    **{
        name: Published(box, mask, file, by="DSC's authors")
        for name, box, mask, file in (
            ("fast_dsc_r50_fpn_1x_coco", 44.5, 39.5, "f_dsc_r50_fpn_1x_coco"),
            ("dsc_r50_fpn_1x_coco", 45.0, 39.7, "dsc_r50_fpn_1x_coco"),
            ("dsc_r50_fpn_20e_coco", 45.8, 40.1, "dsc_r50_fpn_20e_coco"),
            ("dsc_r101_fpn_20e_coco", 46.6, 40.7, "dsc_r101_fpn_20e_coco"),
            ("dsc_x101_32x4d_fpn_20e_coco", 48.0, 41.9, "dsc_x101_32x4d_fpn_20e_coco"),
            (f"dsc_x101_64x4d_{_DCONV}", 51.4, 44.9, f"dsc_x101_64x4d_{_DCONV}"),
        )
    },
}
"""By configuration. Of the other shipped ones no weights are published, or no file is known by name."""
