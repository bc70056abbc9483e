def cut_truth(masks, labels, windows):
    from dsctool.ops.stitching import Piece

    out = []
    for number, window in enumerate(windows):
        for mask, label in zip(masks, labels, strict=True):
            part = mask.inside(window)
            if part.area:
                out.append(Piece(number, tuple(map(float, part.box)), 0.9, label, part))
    return out
