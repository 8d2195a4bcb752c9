#!/usr/bin/env python3
"""Pictures resized by Pillow, and sides rounded by Python, for the tests of model/src/omni/vision/picture.rs.

From 13.0.0 on Pillow takes the columns first where that shrinks a picture much more than its rows: such sizes are left out.

Needs pillow; made with 13.0.0. Usage: make.py > resized.json
"""

import json
import math

from PIL import Image

SIDE = 32
LEAST = 56 * 56


def drawn(width: int, height: int) -> Image.Image:
    values = bytes((i * 31 + i // 7 * 17 + i // (3 * width) * 29) % 251 for i in range(width * height * 3))
    return Image.frombytes("RGB", (width, height), values)


def sides(width: int, height: int, most: int) -> tuple[int, int]:
    w, h = round(width / SIDE) * SIDE, round(height / SIDE) * SIDE
    if w * h > most:
        shrink = math.sqrt(width * height / most)
        w = max(SIDE, math.floor(width / shrink / SIDE) * SIDE)
        h = max(SIDE, math.floor(height / shrink / SIDE) * SIDE)
    elif w * h < LEAST:
        grow = math.sqrt(LEAST / (width * height))
        w, h = math.ceil(width * grow / SIDE) * SIDE, math.ceil(height * grow / SIDE) * SIDE
    return w, h


resized = []
for source, target in [((1, 1), (8, 8)), ((37, 23), (32, 32)), ((100, 60), (32, 32)), ((90, 5), (16, 32)),
                       ((200, 11), (64, 8)), ((16, 16), (16, 16)), ((9, 14), (40, 24))]:
    image = drawn(*source).resize(target, Image.Resampling.BICUBIC)
    resized.append({"from": source, "to": target, "rgb": image.tobytes().hex()})
table = [(w, h, most, *sides(w, h, most))
         for w, h in [(1, 1), (48, 80), (16, 112), (144, 176), (640, 480), (1280, 720), (720, 1280), (1920, 1080), (4000, 3000),
                      (31, 33), (300, 20), (100, 70)]
         for most in (64 * 1024, 256 * 1024, 1024 * 1024)]
print(json.dumps({"resized": resized, "sides": table}))
