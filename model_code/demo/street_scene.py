"""Renders street scenes in perspective, a batch of pictures at a time.

A scene is a straight street seen from a car on it: walls left and right, road, pavement, trees,
cars, people, sky. Pixels are cast into the scene by arithmetic; there is no loop over pictures.

Pixels of all pictures stand in one flat array [P = B * H * W]; `at` holds positions in it. In the
scene: x metres right of the road's midline, e metres above the road, z metres ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from model_code.demo.fields import Draws, Floats

HEIGHT_PX, WIDTH_PX = 96, 128

Pictures = npt.NDArray[np.uint8]
Where = npt.NDArray[np.intp]

_FOCAL_PX = 78.0
_EYE_M = 2.3
_BUILDINGS = 14
_FAR_M = 160.0
_ROWS, _COLUMNS = (np.arange(n, dtype=np.float32) for n in (HEIGHT_PX, WIDTH_PX))

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


@dataclass(frozen=True)
class Layout:
    """What is drawn by chance unless a batch is composed, each float32 [B]: the horizon as a share of
    the picture's height, half the road's width, and how many storeys houses have on average. In a
    composed batch the view is down the middle, houses stand in closed rows, much of a height, and
    trees, people and cars are spread out evenly.
    """

    horizon: Floats
    road_half_m: Floats
    storeys: Floats


def render(scenes: Scenes, rng: Draws, layout: Layout | None = None) -> Pictures:
    """Pictures of the scenes, uint8 [B, H, W, 3]; everything that is left open is drawn."""
    batch = _Batch(scenes, rng)
    if layout is not None:
        batch.compose(layout)
    return batch.render()


class _Batch:
    def __init__(self, scenes: Scenes, rng: Draws) -> None:
        self.scenes, self.rng = scenes, rng
        self.b = b = len(scenes.hour)
        self.shape = (b, HEIGHT_PX, WIDTH_PX)
        vanish_x = WIDTH_PX * self.uniform(b, 0.38, 0.62)
        horizon = HEIGHT_PX * self.uniform(b, 0.46, 0.54)
        # Slopes of a pixel's ray to the right [B, W] and down [B, H].
        self.px = (_COLUMNS - vanish_x[:, None]) / _FOCAL_PX
        self.py = (_ROWS - horizon[:, None]) / _FOCAL_PX
        self.road_half = self.uniform(b, 3.6, 5.2)
        self.setback = self.road_half[:, None] + self.uniform((b, 2), 2.4, 4.5)  # left, right
        self.ground_no, self.composed = np.arange(b), False  # sets which windows are lit
        grain = rng.standard_normal(self.shape, dtype=np.float32)
        blotch = ndimage.uniform_filter(grain, (0, 3, 3), mode="wrap")
        blotch = ndimage.uniform_filter(blotch, (0, 5, 5), mode="wrap") * 6
        self.grain, self.blotch = grain.ravel(), blotch.ravel()
        self.image = np.empty((grain.size, 3), np.float32)
        self.glow = np.zeros(grain.size, np.float32)  # how much of its light is a pixel's own
        # Evening comes between 18 and 21 h.
        dark = np.clip((scenes.hour - 18) / 3, 0, 1) + np.clip((6.5 - scenes.hour) / 2, 0, 1)
        self.night = dark.astype(np.float32)

    def compose(self, layout: Layout) -> None:
        """Take what the layout says in place of what was drawn."""
        self.px = np.repeat((_COLUMNS - WIDTH_PX / 2)[None], self.b, axis=0) / _FOCAL_PX
        self.py = (_ROWS - HEIGHT_PX * layout.horizon[:, None]) / _FOCAL_PX
        self.road_half = layout.road_half_m
        self.setback = np.repeat(self.road_half[:, None] + np.float32(3.4), 2, axis=1)
        self.ground_no = self.rng.integers(0, 2**20, (self.b,))  # not the place in the batch
        self.storeys, self.composed = layout.storeys[:, None, None], True

    def render(self) -> Pictures:
        self.sky()
        self.ground()
        self.walls()
        self.waterside()
        self.trees()
        self.people()
        self.cars()
        return self.exposed()

    # --- drawing ---------------------------------------------------------------------------------

    def uniform(self, shape: int | tuple[int, ...], low: float = 0, high: float = 1) -> Floats:
        values: Floats = self.rng.random(shape, dtype=np.float32)
        return np.float32(low) + np.float32(high - low) * values

    def pick(self, palette: Floats, shape: tuple[int, ...]) -> Floats:
        chosen: Floats = palette[self.rng.integers(0, len(palette), shape)]
        return chosen

    def put(self, at: Where, colour: Floats, shade: Floats | float = 0.0, glow: Any = 0.0) -> None:
        """Paint pixels with a colour, [3] or one each, and a grey shade added to it."""
        shade = np.asarray(shade, np.float32)
        self.image[at] = colour + (shade[:, None] if shade.ndim else shade)
        self.glow[at] = glow

    def rays(self, at: Where) -> tuple[Where, Floats, Floats]:
        """Picture of each pixel, and its slopes to the right and down."""
        b, pixel = np.divmod(at, HEIGHT_PX * WIDTH_PX)
        row, column = np.divmod(pixel, WIDTH_PX)
        return b, self.px[b, column], self.py[b, row]

    def box(
        self, there: Any, x: Floats, z: Floats, half: Floats, high: Floats, low: Any = 0.0
    ) -> tuple[Where, Where, Floats, Floats]:
        """Pixels of one upright rectangle a picture: position, picture, metres right of x, height.

        It stands at x, z [B], is 2 * half wide, and reaches from low to high above the road.
        """
        dx = self.px * z[:, None] - x[:, None]  # [B, W]
        e = _EYE_M - self.py * z[:, None]  # [B, H]
        wide = (np.abs(dx) < half[:, None]) & there[:, None]
        level = (e > np.asarray(low).reshape(-1, 1)) & (e < high[:, None])
        at = np.flatnonzero(wide[:, None, :] & level[:, :, None])
        b, pixel = np.divmod(at, HEIGHT_PX * WIDTH_PX)
        row, column = np.divmod(pixel, WIDTH_PX)
        return at, b, dx[b, column], e[b, row]

    # --- what stands still -----------------------------------------------------------------------

    def sky(self) -> None:
        cloudy = _c(self.uniform(self.b))[..., None]
        up = np.clip(-self.py / 0.6, 0, 1)[:, :, None, None]  # [B, H, 1, 1]
        clear = _rgb(196, 214, 230) + up * _rgb(-84, -58, -12)
        air = clear * (1 - cloudy) + (_rgb(206, 208, 210) - 22 * up) * cloudy
        dusk = np.clip(1 - np.abs(self.scenes.hour - 18.6) / 1.6, 0, 1).astype(np.float32)
        warm = dusk[:, None, None, None] * (1 - up) * 0.6
        air = air * (1 - warm) + _rgb(244, 168, 112) * warm
        # Clouds: a few random knots, interpolated along rows and columns.
        knots = self.uniform((self.b, 6, 8))
        cloud = _between(HEIGHT_PX, 6) @ knots @ _between(WIDTH_PX, 8).T  # [B, H, W]
        puff = np.clip(cloud * 2.2 - 1.1, 0, 1)[..., None] * (0.3 + 0.5 * cloudy) * (1 - 0.7 * warm)
        self.image[:] = (air + (238 - air) * puff).reshape(-1, 3)
        self.open_sky = self.image.copy()

    def ground(self) -> None:
        s = self.scenes
        at = np.flatnonzero(np.broadcast_to(self.py[:, :, None] > 0, self.shape))
        b, px, py = self.rays(at)
        z = _EYE_M / py
        x = np.abs(px * z)
        grain, blotch = self.grain[at], self.blotch[at]
        rough = grain * 5 + blotch * 3
        half, income = self.road_half[b], s.income[b]
        stain = blotch < -0.3 - 0.9 * income
        self.put(at, _rgb(142, 138, 130), 34 * income + rough - 22 * stain)
        verge = self.uniform(self.b) < 1.3 * s.greenery - 0.15
        strip = (x < half + 1.7) & verge[b]
        self.put(at[strip], _GRASS, 1.4 * rough[strip])
        self.put(at[x < half + 0.25], _rgb(190, 188, 184))
        tone = self.uniform(self.b, 78, 112)
        road = x < half
        patch = 14 * (blotch > 1.1 + 0.6 * income)
        self.put(at[road], _rgb(0, 0, 3), (tone[b] + rough - patch)[road])
        phase = self.uniform(self.b, 0, 9)
        dash = (x < 0.09) & ((z + phase[b]) % 9 < 4)
        self.put(at[dash], _rgb(214, 212, 204))

    def walls(self) -> None:
        """Both rows of buildings; a building is (picture, side, number along the street)."""
        s, b = self.scenes, self.b
        shape = (b, 2, _BUILDINGS)
        length = self.uniform(b, 11, 18)
        shed = self.uniform(shape) < np.clip(1.5 * s.industry - 0.3, 0, 1)[:, None, None]
        storeys = self.rng.standard_normal(shape)
        if self.composed:
            storeys = np.clip(self.storeys + 0.3 * storeys, 0.3, 9)
        else:
            storeys = np.clip(np.round(2.4 + 1.5 * storeys), 1, 7)
        tall = np.where(shed, self.uniform(shape, 5.5, 10), 3.1 * storeys + 1).astype(np.float32)
        gap = self.uniform(shape) < 0.06 + 0.22 * s.greenery[:, None, None]
        gap &= not self.composed
        upkeep = np.clip(s.income[:, None, None] + self.uniform(shape, -0.18, 0.18), 0, 1)
        clean = (0.2 + 0.8 * upkeep)[..., None]
        masonry = _GRIME * (1 - clean) + self.pick(_FACADES, shape) * clean
        facade = np.where(shed[..., None], self.pick(_METAL, shape), masonry)
        shop = (self.uniform(shape) < 1.25 * s.commerce[:, None, None] - 0.12) & ~shed
        sign = self.pick(_SIGNS, shape)
        tags = self.pick(_SIGNS, (b,)) * 0.8

        # Where each ray meets the wall of its side.
        reach = np.where(self.px > 0, self.setback[:, 1:], self.setback[:, :1])
        z = reach / np.maximum(np.abs(self.px), 1e-3)  # [B, W]
        number = np.minimum(z / length[:, None], _BUILDINGS - 1).astype(np.int64)
        side = (self.px > 0).astype(np.int64)
        top = np.take_along_axis(tall.reshape(b, -1), side * _BUILDINGS + number, axis=1)
        top = np.where(
            np.take_along_axis(gap.reshape(b, -1), side * _BUILDINGS + number, 1), 2.2, top
        )
        e = _EYE_M - self.py[:, :, None] * z[:, None, :]  # [B, H, W]
        at = np.flatnonzero((e > 0) & (e < top[:, None, :]) & (z < _FAR_M)[:, None, :])
        e = e.ravel()[at]
        pic, pixel = np.divmod(at, HEIGHT_PX * WIDTH_PX)
        column = pixel % WIDTH_PX
        z, side, number = z[pic, column], side[pic, column], number[pic, column]
        house = (pic * 2 + side) * _BUILDINGS + number
        plot = house + (self.ground_no - np.arange(b))[pic] * 2 * _BUILDINGS

        def of(values: np.ndarray) -> np.ndarray:
            flat: np.ndarray = values.reshape(-1, *values.shape[3:])
            return np.asarray(flat[house])

        grain, blotch, night = self.grain[at], self.blotch[at], self.night[pic]
        is_gap, is_shed, is_shop, care = of(gap), of(shed), of(shop), of(upkeep)
        run = z % length[pic]
        streak = np.clip(blotch - 0.4, 0, 2) * (1 - care) * 26
        joint = (run < 0.35) | (e > of(tall) - 0.45)
        rib = is_shed & (run % 1.2 < 0.5)
        dim = np.where(side == 1, 0.9, 1.04) * np.where(joint, 0.8, 1) * np.where(rib, 0.88, 1)
        self.put(at, of(facade) * dim[:, None].astype(np.float32), 2.5 * grain - streak)
        self.built(at, is_shed, care)
        self.put(at[is_gap], _LEAVES, 9 * blotch[is_gap])

        def detail(mask: np.ndarray, colour: Floats, shade: Any = 0.0, glow: Any = 0.0) -> None:
            chosen = mask & ~is_gap
            take = [a[chosen] if np.ndim(a) and len(a) == len(at) else a for a in (shade, glow)]
            self.put(at[chosen], colour[chosen] if colour.ndim == 2 else colour, *take)

        # Windows by storey; lit in the evening; boarded up where nobody cares for the house.
        bay, storey = np.floor(run / 2.7), np.floor((e - 0.6) / 3.1)
        across, up = run / 2.7 - bay, (e - 0.6) / 3.1 - storey
        chance = _hash(plot, bay, storey)
        pane = (across > 0.27) & (across < 0.73) & (up > 0.3) & (up < 0.82)
        pane &= ~is_shed & (e > 3.7) & (e < of(tall) - 0.8)
        boarded = pane & (chance > 0.45 + 0.8 * care)
        detail(pane, _rgb(72, 84, 98), 46.0 * (chance > 0.6))
        detail(pane & (care > 0.55) & ((across < 0.33) | (across > 0.67)), _rgb(240, 238, 232))
        detail(boarded, _rgb(122, 98, 72))
        detail(pane & ~boarded & (chance < 0.45) & (night > 0.3), _rgb(250, 218, 150), glow=0.8)
        gate = is_shed & (np.abs(run - length[pic] / 2) < 2.6) & (e < 4.2)
        detail(gate, _rgb(92, 96, 100), 16.0 * (e % 0.8 < 0.4))

        # Ground floors: shop windows under a lettered sign, else a door and here and there a tag.
        front = is_shop & (e < 2.7) & (e > 0.35) & (run % 4.5 > 0.5)
        detail(front, _rgb(150, 158, 160), 30 * blotch)
        detail(front & (night > 0.3), _rgb(255, 226, 160), 14 * blotch, 0.75 * night)
        board = is_shop & (e >= 2.7) & (e < 3.6)
        bright = 0.2 + 0.6 * night
        detail(board, of(sign), glow=bright)
        letters = board & (np.abs(e - 3.15) < 0.22) & (_hash(np.floor(run / 0.4), plot) > 0.5)
        detail(letters, _rgb(252, 250, 240), glow=bright)
        plain = ~is_shop & ~is_shed
        door = plain & (e < 2.3) & (np.abs(run - length[pic] / 3) < 0.6)
        detail(door, _rgb(88, 66, 50), 40.0 * (care > 0.6))
        detail(~is_shop & (e < 2.1) & (care < 0.3) & (blotch > 0.55), tags[pic])
        haze = np.clip(z / _FAR_M, 0, 1)[:, None] * np.float32(0.55)
        self.image[at] = self.image[at] * (1 - haze) + 200 * haze

    def built(self, at: Where, shed: np.ndarray, care: np.ndarray) -> None:
        """Told of the pixels of walls: whether each is of a shed, and how well kept its house is."""

    def waterside(self) -> None:
        """Near water one side of the street may open to it, behind a railing."""
        opens = self.uniform(self.b) < 2.0 * self.scenes.water - 0.5
        to_right = self.uniform(self.b) < 0.5
        edge = self.setback.max(axis=1) + 0.5
        z = edge[:, None] / np.maximum(np.abs(self.px), 1e-3)
        side = ((self.px > 0) == to_right[:, None]) & opens[:, None]
        e = _EYE_M - self.py[:, :, None] * z[:, None, :]
        at = np.flatnonzero((e > 0) & side[:, None, :])
        e = e.ravel()[at]
        b, _, down = self.rays(at)
        z = z[b, at % WIDTH_PX]
        blotch = self.blotch[at]
        self.put(at, self.open_sky[at])
        shore = (down <= 0) & (down > -0.045 - 0.012 * blotch)
        self.put(at[shore], _rgb(112, 128, 112), 10 * blotch[shore])
        depth = np.clip(down / 0.35, 0, 1)[:, None]
        water = _rgb(124, 146, 158) - depth * _rgb(48, 46, 36)
        wet = down > 0
        self.put(at[wet], np.asarray(water[wet], np.float32), 4 * (blotch + self.grain[at])[wet])
        rail = (np.abs(e - 1.05) < 0.07) | ((e < 1.05) & (z % 2.2 < 0.16))
        self.put(at[rail & (z < 60)], _rgb(86, 90, 94))

    # --- what stands in front, far ones first ----------------------------------------------------

    def slots(self, n: int, near: float, far: float) -> tuple[Floats, Floats, tuple[int, int]]:
        """Distance and side (-1 | 1) of n things a picture, [B, n] each, and that shape."""
        shape = (self.b, n)
        z = -np.sort(-self.uniform(shape, near, far), axis=1)
        right = self.uniform(shape) >= 0.5
        if self.composed:
            z = (np.arange(n, dtype=np.float32) + self.uniform(shape)) / np.float32(n)
            z = np.float32(far) + np.float32(near - far) * z
            right = (np.arange(n) + right[:, :1]) % 2 == 1
        return z, np.where(right, 1, -1).astype(np.float32), shape

    def stands(self, shape: tuple[int, int], chance: Floats) -> npt.NDArray[np.bool_]:
        """Which slots [B, n] are taken, from the chance of each."""
        if not self.composed:
            return np.asarray(self.uniform(shape) < chance)
        # As many as the chances add up to, at even steps.
        total = np.cumsum(np.clip(np.broadcast_to(chance, shape), 0, 1), axis=1)
        total += self.uniform((self.b, 1))
        return np.diff(np.floor(total), axis=1, prepend=0) >= 1

    def trees(self) -> None:
        z, side, shape = self.slots(10, 5, 46)
        x = side * (self.road_half[:, None] + self.uniform(shape, 0.7, 1.6))
        there = self.stands(shape, 1.15 * self.scenes.greenery[:, None] - 0.05)
        radius, middle = self.uniform(shape, 1.3, 2.5), self.uniform(shape, 3.6, 5.0)
        hue = _LEAVES + self.uniform((*shape, 1), -10, 14) * np.array([1.2, 0.8, 0.4], np.float32)
        thin = np.full(self.b, 0.16, np.float32)
        for i in range(shape[1]):
            at, *_ = self.box(there[:, i], x[:, i], z[:, i], thin, middle[:, i])
            self.put(at, _rgb(84, 66, 50))
            r, m = radius[:, i], middle[:, i]
            at, b, dx, e = self.box(
                there[:, i], x[:, i], z[:, i], 1.3 * r, m + 1.5 * r, m - 1.5 * r
            )
            up = (e - m[b]) / r[b]
            blotch = self.blotch[at]
            ragged = 0.28 * blotch + 0.14 * self.grain[at]
            crown = (dx / r[b]) ** 2 + (0.85 * up) ** 2 + ragged < 1
            shade = 10 * np.clip(up, -1, 1) + 9 * blotch
            self.put(at[crown], hue[b[crown], i], shade[crown])

    def people(self) -> None:
        z, side, shape = self.slots(8, 5, 26)
        x = side * (self.road_half[:, None] + self.uniform(shape, 0.5, 2.2))
        there = self.stands(shape, 0.9 * self.scenes.commerce[:, None] - 0.05)
        tall = self.uniform(shape, 1.55, 1.85)
        coat = self.pick(_CLOTHES, shape)
        skin = self.uniform((*shape, 1), 0.45, 1.0) * _rgb(226, 180, 150)
        half = np.full(self.b, 0.25, np.float32)
        for i in range(shape[1]):
            at, b, dx, e = self.box(there[:, i], x[:, i], z[:, i], half, tall[:, i])
            up, off = e / tall[b, i], np.abs(dx)
            legs, body = (up < 0.5) & (off < 0.17), (up >= 0.48) & (up < 0.86)
            head = (up >= 0.86) & (dx**2 + ((up - 0.93) * tall[b, i]) ** 2 < 0.13**2)
            self.put(at[legs], _rgb(48, 50, 60))
            self.put(at[body], coat[b[body], i])
            self.put(at[head], skin[b[head], i])

    def cars(self) -> None:
        s = self.scenes
        z, side, shape = self.slots(5, 7, 38)
        x = side * (self.road_half[:, None] - self.uniform(shape, 0.9, 1.3))
        truck = self.uniform(shape) < 0.75 * s.industry[:, None] - 0.1
        there = self.stands(shape, 0.2 + 0.3 * s.commerce[:, None] + 0.25 * truck)
        half = np.where(truck, 1.25, 0.9).astype(np.float32)
        tall = np.where(truck, self.uniform(shape, 3.0, 3.6), self.uniform(shape, 1.4, 1.75))
        # Well-kept cars keep their colour; others fade.
        new = s.income[:, None, None]
        colour = self.pick(_CARS, shape) * (0.45 + 0.55 * new) + _GRIME * (0.55 - 0.55 * new)
        colour = np.where(truck[..., None], self.pick(_METAL, shape) * 1.15, colour)
        for i in range(shape[1]):
            at, b, dx, e = self.box(there[:, i], x[:, i], z[:, i], half[:, i], tall[:, i])
            top, width, off = tall[b, i], half[b, i], np.abs(dx)
            waist = np.where(truck[b, i], top, 0.55 * top)
            narrow = width * np.where(e > waist, 0.82 - 0.25 * (e - waist) / top, 1)
            body = (off < narrow) & (e > 0.18)
            glass = body & (e > 1.06 * waist) & (e < 0.93 * top) & (off < 0.8 * narrow)
            lamp = body & (np.abs(e - 0.75) < 0.12) & (np.abs(off - 0.75 * width) < 0.16)
            wheel = (e < 0.45) & (np.abs(off - 0.7 * width) < 0.2)
            self.put(at[wheel & ~body], _rgb(26, 26, 28))
            self.put(at[body], colour[b[body], i])
            self.put(at[glass], _rgb(58, 68, 78))
            self.put(at[lamp], _rgb(206, 40, 36), glow=0.6)

    def exposed(self) -> Pictures:
        """Daylight, exposure, colour of the light, blur, vignette, noise."""
        b = self.b
        glow, grain = self.glow.reshape(self.shape), self.grain.reshape(self.shape)
        day = _c(1 - 0.68 * np.clip(self.night, 0, 1))
        light = (day * (1 - glow) + glow)[..., None]
        cast = 1 + self.uniform((b, 1, 1, 3), -0.05, 0.05)
        cast += _c(self.night)[..., None] * _rgb(-0.06, -0.02, 0.08)
        exposure = _c(self.uniform(b, 0.84, 1.14))[..., None]
        image = self.image.reshape(*self.shape, 3) * light * (cast * exposure)
        blurred = ndimage.uniform_filter(image, (0, 3, 3, 0), mode="nearest")
        soft = _c(self.uniform(b, 0.1, 0.8))[..., None]
        image += (blurred - image) * soft
        rows = np.linspace(-1, 1, HEIGHT_PX, dtype=np.float32)[:, None]
        columns = np.linspace(-1, 1, WIDTH_PX, dtype=np.float32)
        image *= (1 - 0.1 * (rows**2 + columns**2))[None, :, :, None]
        image += (_c(self.uniform(b, 1, 6)) * grain)[..., None]
        pixels: Pictures = np.clip(image + 0.5, 0, 255).astype(np.uint8)
        return pixels


def _rgb(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue], np.float32)


def _between(pixels: int, knots: int) -> Floats:
    """Linear interpolation of knots that span the pixels, as a matrix [pixels, knots]."""
    position = np.linspace(0, knots - 1, pixels, dtype=np.float32)[:, None]
    weights: Floats = np.clip(1 - np.abs(position - np.arange(knots, dtype=np.float32)), 0, None)
    return weights


def _c(values: Floats) -> Floats:
    """[B] as [B, 1, 1]."""
    return values[:, None, None]


def _hash(*keys: np.ndarray) -> Floats:
    """A number in 0..1 that looks random and depends on whole-numbered keys alone."""
    mixed = np.zeros((), np.uint32)
    for key, factor in zip(keys, (374761393, 668265263, 2246822519), strict=False):
        mixed = (mixed + key.astype(np.int64).astype(np.uint32)) * np.uint32(factor)
        mixed = mixed ^ (mixed >> np.uint32(15))
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(1274126177)
    out: Floats = ((mixed >> np.uint32(8)) & np.uint32(0xFFFF)).astype(np.float32) / np.float32(
        65535
    )
    return out
