"""What results are worth.

The floor, in the order of its imports: numbering, sources, protocol; tables, pairing, matching, precision (pycocotools'
numbers, of any part of the images and instances); comparison (what was read and paired, for all analyses); limits, coco
(the twelve numbers); overlaps, rows. On it stand two analyses, ``huddle`` and ``error_analysis``.
Beside it stands panoptic, for files of another format.
"""
