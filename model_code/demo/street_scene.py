"""Renders street scenes in perspective, a batch of pictures at a time.

A scene is a straight street seen from a car on it: walls left and right, road, pavement, trees,
cars, people, sky. Pixels are cast into the scene by arithmetic; there is no loop over pictures.

Symbols: B pictures, H x W pixels, K buildings a side; x right, y down in pixels from the vanishing
point; X metres right of the road's midline, E metres above the road, z metres ahead.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_code.demo.fields import Floats

HEIGHT_PX, WIDTH_PX = 96, 128
_FOCAL_PX = 78.0
_EYE_M = 2.3
_BUILDINGS = 14
_FAR_M = 160.0

_FACADES = np.array(
    [[214, 196, 164], [178, 104, 82], [202, 202, 198], [208, 172, 120], [232, 228, 218],
     [158, 170, 180], [192, 150, 138], [168, 156, 136]], np.float32,
)  # fmt: skip
_METAL = np.array([[150, 158, 166], [112, 138, 168], [176, 176, 172], [150, 112, 92]], np.float32)
_SIGNS = np.array(
    [[214, 44, 52], [246, 186, 32], [34, 132, 196], [42, 160, 92], [232, 92, 168], [250, 250, 244]],
    np.float32,
)  # fmt: skip
_CARS = np.array(
    [[40, 42, 46], [206, 208, 210], [150, 154, 160], [156, 36, 36], [44, 72, 122], [236, 236, 232]],
    np.float32,
)  # fmt: skip
_CLOTHES = np.array(
    [[52, 56, 70], [168, 52, 48], [66, 92, 136], [196, 180, 150], [64, 104, 72], [214, 210, 204]],
    np.float32,
)  # fmt: skip
_GRIME = np.array([112, 102, 90], np.float32)
_LEAVES = np.array([70, 104, 48], np.float32)
_GRASS = np.array([112, 136, 74], np.float32)


@dataclass(frozen=True)
class Scenes:
    """What the pictures of a batch show, each float32 [B]; 0..1 but for the hour (local, 0..24)."""

    greenery: Floats
    water: Floats
    industry: Floats
    income: Floats
    commerce: Floats
    hour: Floats


def render(scenes: Scenes, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Pictures of the scenes, uint8 [B, H, W, 3]; everything that the scenes leave open is drawn."""
    return _Batch(scenes, rng).render()


class _Batch:
    def __init__(self, scenes: Scenes, rng: np.random.Generator) -> None:
        self.scenes, self.rng = scenes, rng
        self.b = b = len(scenes.hour)
        self.vanish_x = WIDTH_PX * self.uniform(b, 0.38, 0.62)
        self.horizon = HEIGHT_PX * self.uniform(b, 0.46, 0.54)
        columns = np.arange(WIDTH_PX, dtype=np.float32)[None, None, :]
        rows = np.arange(HEIGHT_PX, dtype=np.float32)[None, :, None]
        self.px = (columns - _c(self.vanish_x)) / _FOCAL_PX  # [B, 1, W]
        self.py = (rows - _c(self.horizon)) / _FOCAL_PX  # [B, H, 1]
        self.road_half = self.uniform(b, 3.6, 5.2)
        self.right = np.broadcast_to(self.px > 0, (b, HEIGHT_PX, WIDTH_PX))
        self.grain = rng.standard_normal((b, HEIGHT_PX, WIDTH_PX), dtype=np.float32)
        soft = ndimage.uniform_filter(self.grain, (0, 3, 3), mode="wrap")
        self.blotch = ndimage.uniform_filter(soft, (0, 5, 5), mode="wrap") * 6
        self.glow = np.zeros((b, HEIGHT_PX, WIDTH_PX), np.float32)  # how much light is its own
        # Evening comes between 18 and 21 h.
        self.night = np.clip((scenes.hour - 18) / 3, 0, 1) + np.clip((6.5 - scenes.hour) / 2, 0, 1)

    def uniform(self, shape: int | tuple[int, ...], low: float = 0, high: float = 1) -> Floats:
        return low + (high - low) * self.rng.random(shape, dtype=np.float32)

    def pick(self, palette: Floats, shape: tuple[int, ...]) -> Floats:
        return palette[self.rng.integers(0, len(palette), shape)]

    def paint(self, mask: npt.NDArray[np.bool_], colour: Floats) -> None:
        """Paint a mask [B, H, W] with a colour that broadcasts to [B, H, W, 3]."""
        self.image = np.where(mask[..., None], colour, self.image)

    def render(self) -> npt.NDArray[np.uint8]:
        self.sky()
        self.ground()
        self.walls()
        self.waterside()
        for objects in (self.trees, self.people, self.cars):
            objects()
        return self.exposed()

    def sky(self) -> None:
        b = self.b
        cloudy = _c(self.uniform(b))[..., None]
        up = np.clip(-self.py / 0.6, 0, 1)[..., None]
        clear = np.array([196, 214, 230], np.float32) + up * np.array([-84, -58, -12], np.float32)
        grey = np.array([206, 208, 210], np.float32) - 22 * up
        self.image = np.broadcast_to(
            clear * (1 - cloudy) + grey * cloudy, (b, HEIGHT_PX, WIDTH_PX, 3)
        ).astype(np.float32)
        coarse = ndimage.zoom(self.uniform((b, 6, 8)), (1, HEIGHT_PX / 6, WIDTH_PX / 8), order=1)
        puff = np.clip(coarse * 2.2 - 1.1, 0, 1)[..., None] * (0.3 + 0.5 * cloudy)
        self.image = self.image * (1 - puff) + 238 * puff
        dusk = (np.clip(1 - np.abs(self.scenes.hour - 18.6) / 1.6, 0, 1))[:, None, None, None]
        warm = dusk * (1 - up) * 0.6
        self.image = self.image * (1 - warm) + np.array([244, 168, 112], np.float32) * warm

    def ground(self) -> None:
        b = self.b
        z = np.where(self.py > 0, _EYE_M / np.maximum(self.py, 1e-3), np.inf)  # [B, H, 1]
        x = self.px * np.minimum(z, 1e4)  # [B, H, W]
        self.ground_z, self.ground_x = z, x
        below = np.broadcast_to(self.py > 0, x.shape)
        rough = self.grain * 5 + self.blotch * 3
        worn = (1 - _c(self.scenes.income))[..., None]
        pavement = np.array([176, 172, 164], np.float32) - 34 * worn
        stained = (self.blotch < -1.2 + 0.9 * worn[..., 0])[..., None]
        pavement = pavement + (rough[..., None]) - 22 * stained
        self.paint(below, pavement)
        verge = self.uniform(b) < 1.3 * self.scenes.greenery - 0.15
        half = _c(self.road_half)
        strip = below & (np.abs(x) < half + 1.7) & _c(verge)
        self.paint(strip, _GRASS + 1.4 * rough[..., None])
        kerb = below & (np.abs(x) < half + 0.25)
        self.paint(kerb, np.array([190, 188, 184], np.float32))
        tone = _c(self.uniform(b, 78, 112))[..., None]
        on_road = below & (np.abs(x) < half)
        patch = 14 * (self.blotch > 1.1 + 0.6 * _c(self.scenes.income))[..., None]
        self.paint(on_road, tone + np.array([0, 0, 3], np.float32) + rough[..., None] - patch)
        phase = _c(self.uniform(b, 0, 9))
        dash = on_road & (np.abs(x) < 0.09) & ((np.minimum(z, 1e4) + phase) % 9 < 4)
        self.paint(dash, np.array([214, 212, 204], np.float32))

    def walls(self) -> None:
        b, s = self.b, self.scenes
        setback = self.road_half[:, None] + self.uniform((b, 2), 2.4, 4.5)  # [B, left | right]
        self.setback = setback
        at = np.where(self.right, *(_c(setback[:, side]) for side in (1, 0)))
        z = at / np.maximum(np.abs(self.px), 1e-3)  # [B, H, W]
        e = _EYE_M - self.py * z
        length = _c(self.uniform(b, 11, 18))
        k = np.minimum(z / length, _BUILDINGS - 1).astype(np.int32)
        slot = (np.arange(b)[:, None, None], self.right.astype(np.int32), k)

        shape = (b, 2, _BUILDINGS)
        shed = self.uniform(shape) < np.clip(1.5 * s.industry - 0.3, 0, 1)[:, None, None]
        storeys = np.clip(np.round(2.4 + 1.5 * self.rng.standard_normal(shape)), 1, 7)
        tall = np.where(shed, self.uniform(shape, 5.5, 10), 3.1 * storeys + 1)
        gap = self.uniform(shape) < 0.06 + 0.22 * s.greenery[:, None, None]
        upkeep = np.clip(s.income[:, None, None] + self.uniform(shape, -0.18, 0.18), 0, 1)
        base = self.pick(_FACADES, shape)
        clean = (0.2 + 0.8 * upkeep)[..., None]
        facade = np.where(
            shed[..., None], self.pick(_METAL, shape), _GRIME * (1 - clean) + base * clean
        )
        shop = (self.uniform(shape) < 1.25 * s.commerce[:, None, None] - 0.12) & ~shed
        sign = self.pick(_SIGNS, shape)

        tall, gap, shed_at, shop_at, upkeep_at = (a[slot] for a in (tall, gap, shed, shop, upkeep))
        on_wall = (e > 0) & (z < _FAR_M)
        wall = on_wall & (e < tall) & ~gap
        run = z % length
        side_light = np.where(self.right, 0.9, 1.04)[..., None]
        streak = np.clip(self.blotch - 0.4, 0, 2) * (1 - upkeep_at) * 26
        colour = facade[slot] * side_light + (2.5 * self.grain - streak)[..., None]
        joint = (run < 0.35) | (e > tall - 0.45)
        colour = np.where(joint[..., None], colour * 0.8, colour)
        self.paint(wall, colour)
        hedge = on_wall & gap & (e < 2.2)
        self.paint(hedge, _LEAVES + 9 * self.blotch[..., None])

        # Windows by storey; lit in the evening; boarded up where nobody cares for the house.
        column, row = np.floor(run / 2.7), np.floor((e - 0.6) / 3.1)
        across, up = run / 2.7 - column, (e - 0.6) / 3.1 - row
        chance = _hash(slot[0], slot[1] * 64 + k, column, row)
        pane = (across > 0.27) & (across < 0.73) & (up > 0.3) & (up < 0.82)
        pane &= wall & ~shed_at & (e > 3.7) & (e < tall - 0.8)
        self.paint(pane, np.array([72, 84, 98], np.float32) + 46 * (chance[..., None] > 0.6))
        framed = pane & (upkeep_at > 0.55) & ((across < 0.33) | (across > 0.67))
        self.paint(framed, np.array([240, 238, 232], np.float32))
        boarded = pane & (chance > 0.45 + 0.8 * upkeep_at)
        self.paint(boarded, np.array([122, 98, 72], np.float32))
        lit = pane & ~boarded & (chance < 0.45) & (_c(self.night) > 0.3)
        self.paint(lit, np.array([250, 218, 150], np.float32))
        self.glow[lit] = 0.8

        # Metal sheds: ribs and a roll-up door.
        ribs = wall & shed_at & (run % 1.2 < 0.5)
        self.paint(ribs, colour * 0.88)
        gate = wall & shed_at & (np.abs(run - length / 2) < 2.6) & (e < 4.2)
        self.paint(gate, np.array([92, 96, 100], np.float32) + 16 * ((e % 0.8 < 0.4)[..., None]))

        # Ground floors: shop windows under a coloured sign, else a door and a plinth.
        front = wall & shop_at & (e < 2.7) & (e > 0.35) & (run % 4.5 > 0.5)
        self.paint(front, np.array([150, 158, 160], np.float32) + 30 * self.blotch[..., None])
        board = wall & shop_at & (e >= 2.7) & (e < 3.6)
        letters = board & (np.abs(e - 3.15) < 0.22) & (_letters(run, k) > 0.5)
        self.paint(board, sign[slot])
        self.paint(letters, np.array([252, 250, 240], np.float32))
        own = _c(0.25 + 0.75 * self.night)
        self.glow = np.where(front, 0.75 * _c(self.night), np.where(board, 0.8 * own, self.glow))
        warm = front & (_c(self.night) > 0.3)
        self.paint(warm, np.array([255, 226, 160], np.float32) + 14 * self.blotch[..., None])
        door = wall & ~shop_at & ~shed_at & (e < 2.3) & (np.abs(run - length / 3) < 0.6)
        self.paint(door, np.array([88, 66, 50], np.float32) + 40 * (upkeep_at[..., None] > 0.6))
        tag = wall & ~shop_at & (e < 2.1) & (upkeep_at < 0.3) & (self.blotch > 0.55)
        self.paint(tag, self.pick(_SIGNS, (b, 1, 1)) * 0.8)
        haze = np.clip(z / _FAR_M, 0, 1)[..., None] * wall[..., None] * 0.55
        self.image = self.image * (1 - haze) + 200 * haze

    def waterside(self) -> None:
        """Near water one side of the street opens to it, behind a railing."""
        s = self.scenes
        is_open = self.uniform(self.b) < 1.6 * s.water - 0.5
        to_right = self.uniform(self.b) < 0.5
        side = _c(is_open) & (self.right == _c(to_right))
        edge = self.setback.max(axis=1) + 0.5
        z = _c(edge) / np.maximum(np.abs(self.px), 1e-3)
        e = _EYE_M - self.py * z
        self.opened = (is_open, to_right)
        beyond = side & (e > 0)  # what the wall covered
        above, below = beyond & (self.py <= 0), beyond & (self.py > 0)
        sky = self.image[:, :1].mean(axis=2, keepdims=True) * 0.35 + 0.65 * np.array(
            [202, 212, 222], np.float32
        )
        self.paint(above, np.broadcast_to(sky, self.image.shape))
        shore = above & (self.py > -0.045 - 0.012 * self.blotch)
        self.paint(shore, np.array([112, 128, 112], np.float32) + 10 * self.blotch[..., None])
        depth = np.clip(self.py / 0.35, 0, 1)[..., None]
        ripple = 9 * ndimage.uniform_filter(self.grain, (0, 0, 7))[..., None]
        water = np.array([124, 146, 158], np.float32) - depth * np.array([48, 46, 36], np.float32)
        self.paint(below, water + 2 * ripple)
        self.glow = np.where(beyond, 0, self.glow)
        rail = side & ((np.abs(e - 1.05) < 0.07) | ((e < 1.05) & (e > 0) & (z % 2.2 < 0.16)))
        self.paint(rail & (z < 60), np.array([86, 90, 94], np.float32))

    def trees(self) -> None:
        s, slots = self.scenes, 10
        shape = (self.b, slots)
        z = -np.sort(-self.uniform(shape, 5, 46), axis=1)  # far ones first
        side = np.where(self.uniform(shape) < 0.5, -1.0, 1.0).astype(np.float32)
        x = side * (self.road_half[:, None] + self.uniform(shape, 0.7, 1.6))
        there = self.uniform(shape) < 1.15 * s.greenery[:, None] - 0.05
        radius = self.uniform(shape, 1.3, 2.5)
        middle = self.uniform(shape, 3.6, 5.0)
        hue = self.uniform((*shape, 1), -10, 14) * np.array([1.2, 0.8, 0.4], np.float32)
        ragged = 0.28 * self.blotch + 0.14 * self.grain
        for i in range(slots):
            dx, e = self.billboard(x[:, i], z[:, i])
            trunk = (np.abs(dx) < 0.16) & (e > 0) & (e < _c(middle[:, i]))
            trunk &= _c(there[:, i])
            self.paint(trunk, np.array([84, 66, 50], np.float32))
            de = e - _c(middle[:, i])
            r2 = (dx**2 + (0.85 * de) ** 2) / _c(radius[:, i]) ** 2
            crown = (r2 + ragged < 1) & _c(there[:, i])
            light = (10 * np.clip(de / _c(radius[:, i]), -1, 1) + 9 * self.blotch)[..., None]
            self.paint(crown, _LEAVES + hue[:, i][:, None, None] + light)
            self.glow = np.where(crown | trunk, 0, self.glow)

    def people(self) -> None:
        s, slots = self.scenes, 8
        shape = (self.b, slots)
        z = -np.sort(-self.uniform(shape, 5, 26), axis=1)
        side = np.where(self.uniform(shape) < 0.5, -1.0, 1.0).astype(np.float32)
        x = side * (self.road_half[:, None] + self.uniform(shape, 0.5, 2.2))
        there = self.uniform(shape) < 0.9 * s.commerce[:, None] - 0.05
        tall = self.uniform(shape, 1.55, 1.85)
        coat = self.pick(_CLOTHES, shape)
        skin = self.uniform((*shape, 1), 0.45, 1.0) * np.array([226, 180, 150], np.float32)
        for i in range(slots):
            dx, e = self.billboard(x[:, i], z[:, i])
            there_i, top = _c(there[:, i]), _c(tall[:, i])
            legs = there_i & (np.abs(dx) < 0.17) & (e > 0) & (e < 0.5 * top)
            body = there_i & (np.abs(dx) < 0.25) & (e >= 0.48 * top) & (e < 0.86 * top)
            head = there_i & (dx**2 + (e - 0.93 * top) ** 2 < 0.13**2)
            self.paint(legs, np.array([48, 50, 60], np.float32))
            self.paint(body, coat[:, i][:, None, None])
            self.paint(head, skin[:, i][:, None, None])
            self.glow = np.where(legs | body | head, 0, self.glow)

    def cars(self) -> None:
        s, slots = self.scenes, 5
        shape = (self.b, slots)
        z = -np.sort(-self.uniform(shape, 7, 38), axis=1)
        side = np.where(self.uniform(shape) < 0.5, -1.0, 1.0).astype(np.float32)
        x = side * (self.road_half[:, None] - self.uniform(shape, 0.9, 1.3))
        truck = self.uniform(shape) < 0.75 * s.industry[:, None] - 0.1
        there = self.uniform(shape) < 0.2 + 0.3 * s.commerce[:, None] + 0.25 * truck
        half = np.where(truck, 1.25, 0.9)
        tall = np.where(truck, self.uniform(shape, 3.0, 3.6), self.uniform(shape, 1.4, 1.75))
        # Well-kept cars keep their colour; others fade.
        new = s.income[:, None, None]
        colour = self.pick(_CARS, shape) * (0.45 + 0.55 * new) + _GRIME * (0.55 - 0.55 * new)
        colour = np.where(truck[..., None], self.pick(_METAL, shape) * 1.15, colour)
        for i in range(slots):
            dx, e = self.billboard(x[:, i], z[:, i])
            width, top, is_truck = _c(half[:, i]), _c(tall[:, i]), _c(truck[:, i])
            inside = _c(there[:, i]) & (e > 0.18) & (e < top)
            waist = np.where(is_truck, top, 0.55 * top)
            narrow = width * np.where(e > waist, 0.82 - 0.25 * (e - waist) / top, 1.0)
            body = inside & (np.abs(dx) < narrow)
            glass = body & (e > 1.06 * waist) & (e < 0.93 * top) & (np.abs(dx) < 0.8 * narrow)
            wheel = (
                _c(there[:, i]) & (e > 0) & (e < 0.45) & (np.abs(np.abs(dx) - 0.7 * width) < 0.2)
            )
            lamp = body & (np.abs(e - 0.75) < 0.12) & (np.abs(np.abs(dx) - 0.75 * width) < 0.16)
            self.paint(wheel, np.array([26, 26, 28], np.float32))
            self.paint(body, colour[:, i][:, None, None] * np.where(e > waist, 0.95, 1)[..., None])
            self.paint(glass, np.array([58, 68, 78], np.float32))
            self.paint(lamp, np.array([206, 40, 36], np.float32))
            self.glow = np.where(body, np.where(lamp, 0.6, 0), self.glow)

    def billboard(self, x: Floats, z: Floats) -> tuple[Floats, Floats]:
        """Metres right of x and metres above the road, on an upright plane at z: [B, H, W] each."""
        return (
            np.broadcast_to(self.px * _c(z) - _c(x), self.grain.shape),
            np.broadcast_to(_EYE_M - self.py * _c(z), self.grain.shape),
        )

    def exposed(self) -> npt.NDArray[np.uint8]:
        """Daylight, exposure, colour of the light, blur, vignette, noise."""
        b = self.b
        day = _c(1 - 0.68 * np.clip(self.night, 0, 1))
        light = (day * (1 - self.glow) + self.glow)[..., None]
        cast = np.array([1, 1, 1], np.float32) + self.uniform((b, 1, 1, 3), -0.05, 0.05)
        cast = cast + _c(self.night)[..., None] * np.array([-0.06, -0.02, 0.08], np.float32)
        exposure = _c(self.uniform(b, 0.84, 1.14))[..., None]
        image = self.image * light * cast * exposure
        blurred = ndimage.uniform_filter(image, (0, 3, 3, 0), mode="nearest")
        soft = _c(self.uniform(b, 0.1, 0.8))[..., None]
        image = image * (1 - soft) + blurred * soft
        rows = np.linspace(-1, 1, HEIGHT_PX, dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, WIDTH_PX, dtype=np.float32)[None, :]
        image *= (1 - 0.10 * (rows**2 + columns**2))[None, :, :, None]
        image += _c(self.uniform(b, 1.0, 6.0))[..., None] * self.grain[..., None]
        return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def _c(values: np.ndarray) -> np.ndarray:
    """[B] as [B, 1, 1]."""
    return values[:, None, None]


def _hash(*keys: np.ndarray) -> Floats:
    """A number in 0..1 that looks random and depends on small integer keys alone."""
    mixed = np.zeros((), np.uint32)
    for key, factor in zip(keys, (374761393, 668265263, 2246822519, 3266489917), strict=True):
        mixed = mixed + key.astype(np.int64).astype(np.uint32) * np.uint32(factor)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(1274126177)
    return ((mixed >> np.uint32(8)) & np.uint32(0xFFFF)).astype(np.float32) / 65535


def _letters(run: Floats, k: np.ndarray) -> Floats:
    """Letters of a sign: light and dark along its length."""
    zero = np.zeros((), np.int64)
    return _hash(np.floor(run / 0.4), k, zero, zero)
