"""The animals and things of generated scenes: what each class looks like."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dsctool.data.synthetic.shapes import Frame, Plane, Point, Solid, blob, fan, inflated, joined, length, lens, tube
from dsctool.data.synthetic.textures import Picture, colour, grain_at, lit, mixed, smoothstep, varied

NO_CLASS = -1
"""Label of weed and grit."""


@dataclass(frozen=True)
class Figure:
    """One drawn object in a window cut to fit it.

    label: its class, or :data:`NO_CLASS`.
    coverage: ``(h, w)``, how much of each pixel it covers, 0 to 1.
    picture: ``(3, h, w)``, shaded.
    """

    label: int
    coverage: Plane
    picture: Picture


Draw = Callable[[np.random.Generator, float, float], tuple[Frame, Solid, Picture]]

_FISH = (("2c6fb3", "f3c44f"), ("e8743b", "fdf0dc"), ("f2b134", "3c4a6b"), ("35a29f", "e3f4e1"), ("7461b5", "f0b7c8"))
_STARFISH = ("e4572e", "ee8a3c", "c2417c", "8a55a8", "d9a12e")
_CRAB = ("c23b2c", "d9622f", "a8344a", "3f6f9c")
_EEL = (("46583a", "c9c46a"), ("26384c", "86b3bd"), ("f0cf4a", "332d2a"), ("6d4a34", "e2c48d"))
_SHELL = (("f6dcc6", "d9806f"), ("f8efdd", "c79a62"), ("efcdda", "a8527f"), ("e6e9f0", "7389b3"), ("fbe3a8", "d9763a"))
_PEBBLE = ("7b8791", "56616d", "aaa193", "74807b", "8f7b6d", "c9c4bb")


def draw_figure(rng: np.random.Generator, label: int, size: float, angle: float) -> Figure:
    """An object of class ``label`` whose box has about the area of a square of ``size`` pixels.

    angle: the way it points, in radians; round things turn as they like.
    """
    frame, solid, albedo = _DRAW[label](rng, size, angle)
    gloss = (0.30, 0.34, 0.26, 0.14, 0.20, 0.08)[label]
    return finished(label, frame, solid, albedo, gloss=gloss)


def finished(label: int, frame: Frame, solid: Solid, albedo: Picture, *, gloss: float) -> Figure:
    """Shade a solid and cut the window to fit it."""
    distance = solid.distance * frame.scale
    coverage = np.clip(0.5 - distance, 0, 1)
    rows, columns = np.flatnonzero(coverage.any(axis=1)), np.flatnonzero(coverage.any(axis=0))
    window = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    picture = lit(albedo, solid.height * (0.6 * frame.scale), gloss=gloss, window=window)
    outline = 1 - 0.42 * np.exp(np.minimum(distance[window], 0) / 1.4)
    return Figure(label, coverage[window], np.clip(picture * outline, 0, 1))


def _fish(rng: np.random.Generator, size: float, angle: float) -> tuple[Frame, Solid, Picture]:
    frame = Frame.turned(reach=(1.35, 0.75), scale=size / 1.75, angle=angle, mirrored=math.cos(angle) < 0)
    deep, bend = float(rng.uniform(0.3, 0.52)), float(rng.uniform(-0.12, 0.12))
    body = lens(frame, nose=1.0, tail=-0.8, deep=deep, bend=bend)
    root = (-0.74, bend * 0.55)
    sweep = float(rng.uniform(0.32, 0.46))
    tail = [tube(frame, [root, (-1.2, root[1] + side * sweep)], [0.08, 0.11]) for side in (-1, 1)]
    tail = [joined(tail, blend=0.3), tube(frame, [root, (-0.98, root[1])], [0.08, 0.16])]
    fins = [tube(frame, [(0.42, -0.88 * deep), (0.0, -deep - 0.03), (-0.45, -0.78 * deep)], [0.06, 0.13, 0.07])]
    fins += [tube(frame, [(0.12, 0.9 * deep), (-0.2, deep + 0.1)], [0.1, 0.05])]
    thin = joined([*tail, *fins], blend=0.06)
    thin = Solid(thin.distance, thin.height * 0.4, thin.along)
    solid = joined([body, thin], blend=0.06)
    base, second = (varied(rng, colour(text)) for text in _FISH[int(rng.integers(len(_FISH)))])
    density, phase = (6.0, 9.0, 13.0)[int(rng.integers(3))], float(rng.uniform(0, 6))
    bars = 0.5 + 0.5 * np.cos((frame.x + 0.25 * frame.y * frame.y) * density + phase)
    belly = smoothstep(frame.y, 0.1 * deep, 0.95 * deep)
    albedo = mixed(base, second, np.maximum(smoothstep(bars, 0.45, 0.75) * 0.85, belly * 0.7))
    fin = np.clip((body.distance - thin.distance) * frame.scale, 0, 1)
    rays = 0.85 + 0.15 * np.cos(np.arctan2(frame.y, frame.x + 0.6) * 40)
    albedo = mixed(albedo, (base + (second - base) * 0.35) * rays, fin)
    return frame, solid, _with_eye(frame, albedo, (0.64, -0.2 * deep), 0.12)


def _starfish(rng: np.random.Generator, size: float, angle: float) -> tuple[Frame, Solid, Picture]:
    frame = Frame.turned(reach=(1.2, 1.2), scale=size / 1.95, angle=float(rng.uniform(0, 2 * math.pi)))
    arms, wide = (6 if rng.random() < 0.15 else 5), float(rng.uniform(0.24, 0.36))
    limbs, middle = [], np.full_like(frame.x, 9)
    for arm in range(arms):
        turn = 2 * math.pi * arm / arms + float(rng.normal(0, 0.06))
        bent = turn + float(rng.normal(0, 0.16))
        length = float(rng.uniform(0.92, 1.08))
        points = [(0.0, 0.0), _polar(0.5, turn), _polar(length, bent)]
        limbs.append(tube(frame, points, [wide, wide * 0.78, 0.09]))
        middle = np.minimum(middle, tube(frame, points, [0.0, 0.0, 0.0]).distance)
    solid = joined(limbs, blend=0.12)
    base = varied(rng, colour(_STARFISH[int(rng.integers(len(_STARFISH)))]))
    light = base + (colour("ffedcc") - base) * 0.62
    knobs = _dots(solid.along * 9 * 1.15, middle * 8.5)
    albedo = mixed(
        base * (0.9 + 0.1 * grain_at(*_pixels(frame), 1)),
        light,
        knobs,
    )
    return frame, Solid(solid.distance, solid.height + knobs * 0.035, solid.along), albedo


def _crab(rng: np.random.Generator, size: float, angle: float) -> tuple[Frame, Solid, Picture]:
    frame = Frame.turned(reach=(1.3, 1.45), scale=size / 2.25, angle=angle)
    wide, deep = float(rng.uniform(0.66, 0.78)), float(rng.uniform(0.5, 0.58))
    waves = [(3, 0.05, math.pi / 2), (2, 0.04, 0.0)]
    back = blob(frame, (wide, deep), waves, 0.36)
    legs = []
    for side in (-1, 1):
        for leg in range(4):
            reach = float(rng.uniform(0.9, 1.1))
            start = (side * wide * 0.75, -0.12 + 0.16 * leg)
            knee = (side * (wide + 0.22) * reach, -0.22 + 0.26 * leg + float(rng.normal(0, 0.04)))
            foot = (knee[0] + side * 0.16, knee[1] + 0.3 + float(rng.normal(0, 0.05)))
            legs.append(tube(frame, [start, knee, foot], [0.1, 0.09, 0.04]))
    claws = [part for side in (-1, 1) for part in _claw(rng, frame, side, wide)]
    solid = joined([*legs, *claws, back])
    base = varied(rng, colour(_CRAB[int(rng.integers(len(_CRAB)))]))
    light = base + (colour("ffe0b8") - base) * 0.5
    spots = smoothstep(grain_at(*_pixels(frame, 60), 2), 0.25, 0.5) * (back.distance < -0.06)
    paler = np.clip((back.distance - np.float32(0.02)) * frame.scale, 0, 1) * 0.35
    albedo = mixed(base, light, np.maximum(spots * 0.55, paler))
    for side in (-1, 1):
        albedo = _with_eye(frame, albedo, (side * 0.17, -deep * 0.82), 0.1)
    return frame, solid, albedo


def _claw(rng: np.random.Generator, frame: Frame, side: int, wide: float) -> list[Solid]:
    lift, size = float(rng.normal(0, 0.08)), float(rng.uniform(0.9, 1.3))
    elbow = (side * (wide + 0.16), -0.42 + lift)
    hand = (side * (wide - 0.02), -0.78 + lift)
    tips = [(hand[0] - side * 0.3 * size, hand[1] - 0.16), (hand[0] - side * 0.02, hand[1] - 0.38 * size)]
    arm = tube(frame, [(side * wide * 0.7, -0.18), elbow, hand], [0.1, 0.11, 0.2 * size])
    return [arm, *(tube(frame, [hand, tip], [0.19 * size, 0.06]) for tip in tips)]


def _eel(rng: np.random.Generator, size: float, angle: float) -> tuple[Frame, Solid, Picture]:
    frame = Frame.turned(reach=(1.7, 0.9), scale=size / 1.85, angle=angle)
    swing, phase = float(rng.uniform(0.3, 0.55)), float(rng.uniform(0, 6.28))
    waves = float(rng.uniform(3.0, 6.0))
    points: list[Point] = []
    for t in np.linspace(0, 1, 15).tolist():
        points.append((1.4 - 2.8 * t, swing * math.sin(phase + waves * t) * (0.5 + 0.5 * t)))
    thick = float(rng.uniform(0.24, 0.31))
    radii = [thick * share for share in (0.75, 1.0, 1.0, 0.98, 1, 1, 1, 1, 0.98, 0.94, 0.88, 0.8, 0.7, 0.55, 0.35)]
    solid = tube(frame, points, radii)
    base, second = (varied(rng, colour(text)) for text in _EEL[int(rng.integers(len(_EEL)))])
    if rng.random() < 0.5:
        pattern = smoothstep(np.cos(solid.along * float(rng.uniform(45, 65))), 0.1, 0.5)
    else:
        pattern = smoothstep(grain_at(*_pixels(frame, 46), 2), 0.1, 0.3)
    ridge = smoothstep(-solid.distance, 0.0, thick * 0.5) * 0.25
    albedo = mixed(mixed(base, second, pattern * 0.85), colour("ffffe6"), ridge * 0.4)
    return frame, solid, _with_eye(frame, albedo, (points[0][0] - 0.03, points[0][1] - 0.03), 0.085)


def _shell(rng: np.random.Generator, size: float, angle: float) -> tuple[Frame, Solid, Picture]:
    frame = Frame.turned(reach=(1.25, 1.0), scale=size / 1.75, angle=float(rng.uniform(0, 2 * math.pi)))
    spread, flutes = float(rng.uniform(0.95, 1.2)), int(rng.integers(6, 10))
    leaf = fan(frame, spread=spread, flutes=flutes, depth=0.12)
    ears = tube(frame, [(-0.27, 0.72), (0.27, 0.72)], [0.12, 0.12])
    solid = joined([leaf, Solid(ears.distance, ears.height * 0.7, np.zeros_like(ears.along))], blend=0.05)
    pale, strong = (varied(rng, colour(text)) for text in _SHELL[int(rng.integers(len(_SHELL)))])
    rings = smoothstep(np.cos(leaf.along * float(rng.uniform(16, 30)) + float(rng.uniform(0, 6))), 0.2, 0.9)
    turn = np.arctan2(frame.x, 0.8 - frame.y)
    grooves = 0.5 - 0.5 * np.cos(turn * (flutes * math.pi / spread))
    albedo = mixed(pale, strong, np.clip(rings * 0.55 + grooves * 0.35 + (1 - leaf.along) * 0.25, 0, 1))
    return frame, solid, albedo


def _pebble(rng: np.random.Generator, size: float, angle: float) -> tuple[Frame, Solid, Picture]:
    frame = Frame.turned(reach=(1.2, 1.2), scale=size / 1.75, angle=float(rng.uniform(0, 2 * math.pi)))
    flat = float(rng.uniform(0.62, 0.95))
    waves = [
        (periods, float(rng.uniform(0, 0.09 / (periods - 1))), float(rng.uniform(0, 6.28))) for periods in (2, 3, 4)
    ]
    solid = blob(frame, (1.0, flat), waves, 0.55)
    height = np.minimum(solid.height, inflated(solid.distance, 0.5))
    base = varied(rng, colour(_PEBBLE[int(rng.integers(len(_PEBBLE)))]), 0.03)
    speckle = grain_at(*_pixels(frame, 40), 1)
    tone = base * (1 + 0.22 * speckle + 0.12 * grain_at(*_pixels(frame, 14), 2))
    if rng.random() < 0.45:
        line = frame.y * math.cos(0.6) + frame.x * 0.4 + 0.1 * np.sin(frame.x * 4) + float(rng.uniform(-0.3, 0.3))
        tone = mixed(tone, colour("ede8db"), smoothstep(-np.abs(line), -0.11, -0.05) * 0.7)
    return frame, Solid(solid.distance, height, solid.along), np.clip(tone, 0, 1)


def _with_eye(frame: Frame, albedo: Picture, at: Point, radius: float) -> Picture:
    away = length(frame.x - at[0], frame.y - at[1])
    albedo = mixed(albedo, colour("f7f5e6"), np.clip((radius - away) * frame.scale + 0.5, 0, 1))
    return mixed(albedo, colour("0f0f17"), np.clip((radius * 0.62 - away) * frame.scale + 0.5, 0, 1))


def _dots(u: Plane, v: Plane) -> Plane:
    """A round dot at every whole number of both coordinates."""
    return smoothstep(-length(u - np.rint(u), v - np.rint(v)), -0.36, -0.18)


def _pixels(frame: Frame, per_unit: float = 30) -> tuple[Plane, Plane]:
    """Coordinates for noise that is fixed to the object, never coarser than the picture."""
    per_unit = max(per_unit, frame.scale)
    return frame.x * per_unit + 512, frame.y * per_unit + 512


def _polar(radius: float, turn: float) -> Point:
    return radius * math.cos(turn), radius * math.sin(turn)


_DRAW: tuple[Draw, ...] = (_crab, _eel, _fish, _pebble, _shell, _starfish)
CLASSES = ("crab", "eel", "fish", "pebble", "shell", "starfish")
"""Names of the classes, by label."""
