"""What results are worth.

The floor, in the order of its imports: numbering, sources, coco (pycocotools' own numbers); tables, matching, precision
(the same numbers, of any part of the images and instances), overlaps; rows. On it stand two analyses, ``huddle`` and
``error_analysis``.
"""
