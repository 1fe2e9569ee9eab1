"""Meshes to images, by rasterizing: five small Warp kernels draw a whole batch of heads, on a CPU
or on CUDA.

Triangles are projected and kept where they are nearest, four samples a pixel (hair is thinned to
strands there); the same is done from the lamp for its shadow. Then every pixel is shaded: skin
samples together, everything else each on its own. Skin is lit by spherical-harmonic ambient light
times baked occlusion, and by one lamp with wrapped diffuse (wider in red, as light scatters under
skin), a soft shadow and a highlight. Eyes are shaded by direction from the eyeball's center, so
both irises are round and look the same way. Casting rays instead took longer, for the same picture
with noisier shadows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from norface_lib.faces.head import CLOTH, EYE, FRAME, HAIR, LENS, SKIN, TEETH, TONGUE, head_model
from norface_lib.faces.skin import Look, painter
from norface_lib.images.crop import NORFACE_CROP, similarity

_mat43, _mat24 = wp.types.matrix((4, 3), wp.float32), wp.types.matrix((2, 4), wp.float32)
_SKIN, _EYE, _TONGUE, _TEETH = (wp.constant(m) for m in (SKIN, EYE, TONGUE, TEETH))
_HAIR, _FRAME, _LENS, _CLOTH = (wp.constant(m) for m in (HAIR, FRAME, LENS, CLOTH))
_GRID = wp.constant(2)  # samples along each side of a pixel
_FEATHER = wp.constant(0.010)  # meters from its tips within which hair thins out
# texels along a side, and half its width in meters
_SHADOW_SIZE, _SHADOW_REACH = wp.constant(144), wp.constant(0.17)
_FACE_BITS = wp.constant(wp.int64(1 << 32))


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and what it frames. Angles in radians, from the head's point of view;
    distance in meters."""

    yaw: float = 0.0  # positive: the subject turns to the image's left
    pitch: float = 0.0  # positive: the subject looks up
    roll: float = 0.0
    distance: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)  # of the crop, in widths of the image
    zoom: float = 1.0  # above 1 the face is larger than the crop asks for
    tilt: float = 0.0  # rotation of the crop, radians: what an imperfect alignment leaves


@dataclass(frozen=True)
class Light:
    """One directional light and an ambient one, in camera coordinates (x right, y up, z towards the
    camera)."""

    direction: tuple[float, float, float] = (0.35, 0.5, 0.8)
    color: tuple[float, float, float] = (0.75, 0.73, 0.70)
    # (4, 3): constant and x, y, z terms of a first-order spherical harmonic, RGB
    ambient: NDArray[np.float32] = field(
        default_factory=lambda: np.array(
            [(0.42,) * 3, (0.0,) * 3, (0.10,) * 3, (0.08,) * 3], np.float32
        )
    )


@dataclass(frozen=True)
class Shot:
    """One head to draw: its vertices (V, 3), what is told at each vertex (V,), its surface, and who
    looks at it in which light.

    ``told``: depth of wrinkles on skin, distance from the tips in hair. ``anchor``: five points (5,
    3) that meet the crop.
    """

    vertices: NDArray[np.float32]
    told: NDArray[np.float32]
    eyes: NDArray[np.float32]
    look: Look
    anchor: NDArray[np.float32]
    camera: Camera = Camera()
    light: Light = field(default_factory=Light)
    gaze: tuple[float, float] = (0.0, 0.0)  # yaw, pitch in radians


@wp.struct
class _View:
    origin: wp.vec3
    right: wp.vec3
    up: wp.vec3
    forward: wp.vec3
    to_sample: wp.mat33  # image plane at distance 1 (x, y, 1) to samples
    light: wp.vec3
    light_right: wp.vec3
    light_up: wp.vec3
    light_color: wp.vec3
    ambient: _mat43
    eyes: _mat24
    gaze: wp.vec3
    iris: wp.vec3
    sclera: wp.vec3
    hair: wp.vec3
    cloth: wp.vec3
    strands: wp.uint32  # seed of the pattern of strands


# --- vertices -------------------------------------------------------------------------------------


@wp.kernel(enable_backward=False)
def _find_normals(
    vertices: wp.array2d(dtype=wp.vec3),
    triangles: wp.array2d(dtype=wp.int32),
    first: wp.array(dtype=wp.int32),
    around: wp.array(dtype=wp.int32),
    normals: wp.array2d(dtype=wp.vec3),
):
    """Unit normals of vertices, weighted by the area of the triangles around each."""
    b, i = wp.tid()
    total = wp.vec3(0.0, 0.0, 0.0)
    for k in range(first[i], first[i + 1]):
        t = around[k]
        a = vertices[b, triangles[t, 0]]
        total += wp.cross(vertices[b, triangles[t, 1]] - a, vertices[b, triangles[t, 2]] - a)
    normals[b, i] = wp.normalize(total)


@wp.kernel(enable_backward=False)
def _project(
    views: wp.array(dtype=_View),
    vertices: wp.array2d(dtype=wp.vec3),
    seen: wp.array2d(dtype=wp.vec3),
    lit: wp.array2d(dtype=wp.vec3),
):
    """Vertices as the camera sees them (sample x, y, 1 / depth), and as the lamp does (texel x, y,
    nearness in meters)."""
    b, i = wp.tid()
    view = views[b]
    offset = vertices[b, i] - view.origin
    depth = wp.max(wp.dot(offset, view.forward), 0.05)
    seen[b, i] = view.to_sample * wp.vec3(
        wp.dot(offset, view.right) / depth, wp.dot(offset, view.up) / depth, 1.0
    )
    seen[b, i][2] = 1.0 / depth
    lit[b, i] = _lamp_place(view, vertices[b, i])


@wp.func
def _lamp_place(view: _View, point: wp.vec3):
    p = point - wp.vec3(0.0, 0.04, -0.02)
    scale = 0.5 * float(_SHADOW_SIZE) / _SHADOW_REACH
    middle = 0.5 * float(_SHADOW_SIZE)
    return wp.vec3(
        wp.dot(p, view.light_right) * scale + middle,
        wp.dot(p, view.light_up) * scale + middle,
        wp.dot(p, view.light),
    )


# --- what is nearest ------------------------------------------------------------------------------


@wp.func
def _area(p: wp.vec3, q: wp.vec3, r: wp.vec3):
    """Twice the area of a projected triangle; rows run down, so it is negative for one that faces
    the camera."""
    return (q[0] - p[0]) * (r[1] - p[1]) - (r[0] - p[0]) * (q[1] - p[1])


@wp.func
def _weights(p: wp.vec3, q: wp.vec3, r: wp.vec3, area: float, x: float, y: float):
    """Barycentric weights of a place; all are positive inside."""
    v = ((x - p[0]) * (r[1] - p[1]) - (r[0] - p[0]) * (y - p[1])) / area
    w = ((q[0] - p[0]) * (y - p[1]) - (x - p[0]) * (q[1] - p[1])) / area
    return wp.vec3(1.0 - v - w, v, w)


@wp.func
def _strand(uv: wp.vec2, seed: wp.uint32, count: float):
    """Smooth noise in 0..1 that runs along strands: fine around the head, long from root to tip."""
    return 0.5 + 0.5 * wp.noise(seed, wp.vec2(uv[0] * count, uv[1] * 5.0)) * 1.4


@wp.kernel(enable_backward=False)
def _rasterize(
    views: wp.array(dtype=_View),
    seen: wp.array2d(dtype=wp.vec3),
    triangles: wp.array2d(dtype=wp.int32),
    uv_triangles: wp.array2d(dtype=wp.int32),
    uvs: wp.array(dtype=wp.vec2),
    materials: wp.array(dtype=wp.int32),
    told: wp.array2d(dtype=float),
    nearest: wp.array3d(dtype=wp.int64),
):
    """Keeps the nearest triangle at each sample: 1 / depth in the upper bits, the triangle's number
    in the lower ones."""
    b, t = wp.tid()
    i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    p, q, r = seen[b, i], seen[b, j], seen[b, k]
    material = materials[t]
    area = _area(p, q, r)
    closed = material == _SKIN or material == _EYE
    if wp.abs(area) < 1.0e-9 or (closed and area > 0.0):  # the back never shows
        return
    side = nearest.shape[1]
    left = wp.max(int(wp.ceil(wp.min(p[0], wp.min(q[0], r[0])) - 0.5)), 0)
    right = wp.min(int(wp.floor(wp.max(p[0], wp.max(q[0], r[0])) - 0.5)), side - 1)
    top = wp.max(int(wp.ceil(wp.min(p[1], wp.min(q[1], r[1])) - 0.5)), 0)
    bottom = wp.min(int(wp.floor(wp.max(p[1], wp.max(q[1], r[1])) - 0.5)), side - 1)
    if right < left or bottom < top:
        return
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            at = _weights(p, q, r, area, float(x) + 0.5, float(y) + 0.5)
            if at[0] < 0.0 or at[1] < 0.0 or at[2] < 0.0:
                continue
            inverse = at[0] * p[2] + at[1] * q[2] + at[2] * r[2]
            if material == _HAIR:
                at = wp.vec3(at[0] * p[2], at[1] * q[2], at[2] * r[2]) / inverse
                tip = told[b, i] * at[0] + told[b, j] * at[1] + told[b, k] * at[2]
                if tip < _FEATHER:
                    uv = (
                        uvs[uv_triangles[t, 0]] * at[0]
                        + uvs[uv_triangles[t, 1]] * at[1]
                        + uvs[uv_triangles[t, 2]] * at[2]
                    )
                    if _strand(uv, views[b].strands, 420.0) > 0.1 + 0.95 * tip / _FEATHER:
                        continue
            key = wp.int64(inverse * 2.0e8) * _FACE_BITS + wp.int64(t)
            wp.atomic_max(nearest, b, y, x, key)


@wp.kernel(enable_backward=False)
def _cast(
    lit: wp.array2d(dtype=wp.vec3),
    triangles: wp.array2d(dtype=wp.int32),
    materials: wp.array(dtype=wp.int32),
    shadow: wp.array3d(dtype=float),
):
    """Keeps how near to the lamp the nearest surface is, at each texel of the lamp's picture."""
    b, t = wp.tid()
    material = materials[t]
    if material == _EYE or material == _TONGUE or material == _TEETH:
        return
    p, q, r = lit[b, triangles[t, 0]], lit[b, triangles[t, 1]], lit[b, triangles[t, 2]]
    area = _area(p, q, r)
    # the side away from the lamp casts the same shadow
    if wp.abs(area) < 1.0e-9 or (material == _SKIN and area < 0.0):
        return
    left = wp.max(int(wp.ceil(wp.min(p[0], wp.min(q[0], r[0])) - 0.5)), 0)
    right = wp.min(int(wp.floor(wp.max(p[0], wp.max(q[0], r[0])) - 0.5)), _SHADOW_SIZE - 1)
    top = wp.max(int(wp.ceil(wp.min(p[1], wp.min(q[1], r[1])) - 0.5)), 0)
    bottom = wp.min(int(wp.floor(wp.max(p[1], wp.max(q[1], r[1])) - 0.5)), _SHADOW_SIZE - 1)
    for y in range(top, bottom + 1):
        for x in range(left, right + 1):
            at = _weights(p, q, r, area, float(x) + 0.5, float(y) + 0.5)
            if at[0] >= 0.0 and at[1] >= 0.0 and at[2] >= 0.0:
                wp.atomic_max(shadow, b, y, x, at[0] * p[2] + at[1] * q[2] + at[2] * r[2])


# --- shading --------------------------------------------------------------------------------------


@wp.func
def _texel(texture: wp.array3d(dtype=Any), b: int, uv: wp.vec2):
    """The texture (B, S, S) at a place, interpolated."""
    size = texture.shape[1]
    x = wp.clamp(uv[0] * float(size) - 0.5, 0.0, float(size) - 1.001)
    y = wp.clamp(uv[1] * float(size) - 0.5, 0.0, float(size) - 1.001)
    i, j = int(x), int(y)
    fx, fy = x - float(i), y - float(j)
    top = texture[b, j, i] * (1.0 - fx) + texture[b, j, i + 1] * fx
    bottom = texture[b, j + 1, i] * (1.0 - fx) + texture[b, j + 1, i + 1] * fx
    return top * (1.0 - fy) + bottom * fy


@wp.func
def _lamp_reaches(
    view: _View, shadow: wp.array3d(dtype=float), b: int, point: wp.vec3, bias: float
):
    """Share 0..1 of the lamp that a point sees: the mean over 4 x 4 texels, weighted so that it
    changes smoothly."""
    at = _lamp_place(view, point)
    x, y = at[0] - 2.0, at[1] - 2.0
    i, j = int(wp.floor(x)), int(wp.floor(y))
    fx, fy = x - float(i), y - float(j)
    if i < 0 or j < 0 or i + 4 >= _SHADOW_SIZE or j + 4 >= _SHADOW_SIZE:
        return 1.0
    free = float(0.0)
    for row in range(5):
        wy = wp.where(row == 0, 1.0 - fy, wp.where(row == 4, fy, 1.0))
        for column in range(5):
            wx = wp.where(column == 0, 1.0 - fx, wp.where(column == 4, fx, 1.0))
            free += wp.where(shadow[b, j + row, i + column] > at[2] + bias, 0.0, wx * wy)
    return free / 16.0


@wp.func
def _ambient(view: _View, n: wp.vec3):
    x, y, z = wp.dot(n, view.right), wp.dot(n, view.up), -wp.dot(n, view.forward)
    a = view.ambient
    light = wp.vec3(a[0, 0], a[0, 1], a[0, 2]) + wp.vec3(a[1, 0], a[1, 1], a[1, 2]) * x
    light += wp.vec3(a[2, 0], a[2, 1], a[2, 2]) * y + wp.vec3(a[3, 0], a[3, 1], a[3, 2]) * z
    return wp.vec3(wp.max(light[0], 0.03), wp.max(light[1], 0.03), wp.max(light[2], 0.03))


@wp.func
def _lit(
    view: _View,
    albedo: wp.vec3,
    n: wp.vec3,
    ray: wp.vec3,
    sky: float,
    lamp: float,
    wrap: wp.vec3,
    shine: float,
    gloss: float,
):
    """Ambient light, wrapped diffuse light of the lamp, and a highlight that grows towards grazing
    angles (Schlick 1994)."""
    facing = wp.dot(n, view.light)
    wrapped = wp.cw_div(wp.vec3(facing, facing, facing) + wrap, wp.vec3(1.0, 1.0, 1.0) + wrap)
    # light bleeds red into a shadow on skin
    bleeding = wp.vec3(0.10, 0.03, 0.02) + wp.vec3(0.90, 0.97, 0.98) * lamp
    diffuse = wp.cw_mul(wp.max(wrapped, wp.vec3(0.0, 0.0, 0.0)), bleeding)
    half = wp.normalize(view.light - ray)
    grazing = 1.0 - wp.clamp(-wp.dot(n, ray), 0.0, 1.0)
    mirror = shine * (1.0 + 6.0 * wp.pow(grazing, 5.0))
    spark = wp.pow(wp.max(wp.dot(n, half), 0.0), gloss) * mirror * lamp
    light = _ambient(view, n) * sky + wp.cw_mul(view.light_color, diffuse)
    return (
        wp.cw_mul(albedo, light)
        + view.light_color * spark
        + _ambient(view, n) * (0.12 * mirror * grazing * grazing * sky)
    )


@wp.func
def _eye_color(outward: wp.vec3, gaze: wp.vec3, iris: wp.vec3, sclera: wp.vec3):
    angle = wp.acos(wp.clamp(wp.dot(outward, gaze), -1.0, 1.0))
    # an iris is 11.7 mm wide on a ball of 24 mm: 0.42 rad from its middle
    edge = wp.smoothstep(0.39, 0.44, angle)
    ring = iris * (1.25 - 0.95 * wp.smoothstep(0.28, 0.42, angle))
    pupil = wp.smoothstep(0.13, 0.17, angle)
    veined = sclera - wp.vec3(0.02, 0.10, 0.10) * wp.smoothstep(0.6, 1.1, angle)
    return (
        veined * edge
        + ring * ((1.0 - edge) * pupil)
        + wp.vec3(0.008, 0.007, 0.007) * ((1.0 - edge) * (1.0 - pupil))
    )


@wp.func
def _hair_color(
    view: _View,
    n: wp.vec3,
    point: wp.vec3,
    ray: wp.vec3,
    uv: wp.vec2,
    told: float,
    sky: float,
    lamp: float,
):
    """Strands run down the head: light along them glances off in a ring (Kajiya and Kay 1989)."""
    around = wp.normalize(wp.cross(wp.vec3(0.0, 0.0, 1.0), point - wp.vec3(0.0, 0.065, 0.01)))
    along = wp.normalize(wp.cross(around, n))
    light_along, ray_along = wp.dot(along, view.light), wp.dot(along, ray)
    across_light = wp.sqrt(wp.max(1.0 - light_along * light_along, 0.0))
    across_ray = wp.sqrt(wp.max(1.0 - ray_along * ray_along, 0.0))
    glance = wp.pow(wp.max(across_light * across_ray - light_along * ray_along, 0.0), 26.0)
    toward = wp.clamp(0.35 + 0.65 * wp.dot(n, view.light), 0.0, 1.0)
    strand = 0.45 + 0.75 * _strand(uv, view.strands, 120.0) * (
        0.6 + 0.8 * _strand(uv, view.strands, 33.0)
    )
    light = _ambient(view, n) * sky + view.light_color * (across_light * toward * lamp)
    shine = view.light_color * (glance * toward * lamp * 0.35 * strand)
    return wp.cw_mul(view.hair, light) * strand + wp.cw_mul(
        view.hair * 0.8 + wp.vec3(0.12, 0.12, 0.12), shine
    )


@wp.func
def _covered(
    nearest: wp.array3d(dtype=wp.int64), materials: wp.array(dtype=wp.int32), b: int, x: int, y: int
):
    """How close 0..1 skin is above a sample: lids and lips shade what they nearly cover."""
    covered = float(0.0)
    steps = wp.max(1, nearest.shape[1] // 40)
    for step in range(1, steps + 1):
        above = nearest[b, wp.max(y - step, 0), x]
        if above != wp.int64(0) and materials[int(above % _FACE_BITS)] == _SKIN:
            covered = wp.max(covered, 1.0 - float(step - 1) / float(steps))
    return covered


@wp.func
def _tooth(uv: wp.vec2):
    """Albedo of a dental arc: eleven teeth with gaps, gums above them, darker towards the back."""
    middle = wp.abs(uv[0] * 11.0 - wp.floor(uv[0] * 11.0) - 0.5) * 2.0
    gap = wp.smoothstep(0.75, 1.0, middle)
    gum = wp.smoothstep(0.62, 0.72, uv[1] + 0.12 * middle)
    albedo = (
        wp.vec3(0.70, 0.66, 0.58) * (1.0 - 0.45 * gap) * (1.0 - gum)
        + wp.vec3(0.45, 0.16, 0.15) * gum
    )
    return albedo * (1.0 - 0.65 * wp.smoothstep(0.25, 0.0, wp.min(uv[0], 1.0 - uv[0])))


@wp.func
def _inner_color(
    view: _View,
    material: int,
    n: wp.vec3,
    point: wp.vec3,
    ray: wp.vec3,
    uv: wp.vec2,
    covered: float,
    lamp: float,
):
    """Eyes, teeth and tongue, which lids and lips surround."""
    sky = 1.0 - 0.5 * covered
    if material == _EYE:
        ball = wp.where(point[0] > 0.0, 0, 1)
        outward = wp.normalize(
            point - wp.vec3(view.eyes[ball, 0], view.eyes[ball, 1], view.eyes[ball, 2])
        )
        albedo = _eye_color(outward, view.gaze, view.iris, view.sclera)
        wrap = wp.vec3(0.2, 0.15, 0.12)
        return _lit(
            view, albedo, outward, ray, 0.9 * sky, lamp * (1.0 - 0.7 * covered), wrap, 0.7, 160.0
        )
    wrap = wp.vec3(0.2, 0.1, 0.1)
    if material == _TEETH:
        return _lit(view, _tooth(uv), n, ray, 0.75 * sky, lamp * sky, wrap, 0.25, 50.0)
    return _lit(view, wp.vec3(0.36, 0.11, 0.10), n, ray, 0.55 * sky, lamp * sky, wrap, 0.1, 20.0)


@wp.func
def _worn_color(view: _View, material: int, n: wp.vec3, ray: wp.vec3, lamp: float):
    """A garment, and the frame and dark lenses of glasses."""
    if material == _CLOTH:
        return _lit(view, view.cloth, n, ray, 0.75, lamp, wp.vec3(0.1, 0.1, 0.1), 0.0, 10.0)
    if material == _FRAME:
        return _lit(
            view, wp.vec3(0.03, 0.025, 0.02), n, ray, 0.9, lamp, wp.vec3(0.0, 0.0, 0.0), 0.5, 60.0
        )
    return _lit(
        view, wp.vec3(0.015, 0.014, 0.013), n, ray, 1.0, lamp, wp.vec3(0.0, 0.0, 0.0), 0.4, 90.0
    )


@wp.kernel(enable_backward=False)
def _shade(
    views: wp.array(dtype=_View),
    vertices: wp.array2d(dtype=wp.vec3),
    normals: wp.array2d(dtype=wp.vec3),
    seen: wp.array2d(dtype=wp.vec3),
    told: wp.array2d(dtype=float),
    occlusion: wp.array(dtype=float),
    triangles: wp.array2d(dtype=wp.int32),
    uv_triangles: wp.array2d(dtype=wp.int32),
    uvs: wp.array(dtype=wp.vec2),
    materials: wp.array(dtype=wp.int32),
    textures: wp.array3d(dtype=wp.vec3),
    grooves: wp.array3d(dtype=wp.vec4),
    nearest: wp.array3d(dtype=wp.int64),
    shadow: wp.array3d(dtype=float),
    image: wp.array3d(dtype=wp.vec4),
):
    b, row, column = wp.tid()
    view = views[b]
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    skin = float(0.0)
    skin_albedo, skin_normal, skin_point = wp.vec3(), wp.vec3(), wp.vec3()
    skin_sky = float(0.0)
    inner_lamp = float(-1.0)
    for sample in range(_GRID * _GRID):
        x, y = column * _GRID + sample % _GRID, row * _GRID + sample // _GRID
        key = nearest[b, y, x]
        if key == wp.int64(0):
            continue
        t = int(key % _FACE_BITS)
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        p, q, r = seen[b, i], seen[b, j], seen[b, k]
        at = _weights(p, q, r, _area(p, q, r), float(x) + 0.5, float(y) + 0.5)
        at = wp.vec3(at[0] * p[2], at[1] * q[2], at[2] * r[2])
        at = at / (at[0] + at[1] + at[2])
        point = vertices[b, i] * at[0] + vertices[b, j] * at[1] + vertices[b, k] * at[2]
        normal = normals[b, i] * at[0] + normals[b, j] * at[1] + normals[b, k] * at[2]
        uv = (
            uvs[uv_triangles[t, 0]] * at[0]
            + uvs[uv_triangles[t, 1]] * at[1]
            + uvs[uv_triangles[t, 2]] * at[2]
        )
        level = told[b, i] * at[0] + told[b, j] * at[1] + told[b, k] * at[2]
        sky = occlusion[i] * at[0] + occlusion[j] * at[1] + occlusion[k] * at[2]
        material = materials[t]
        if material == _SKIN:
            albedo = _texel(textures, b, uv)
            if level > 0.02:
                groove = _texel(grooves, 0, uv)
                normal = normal - wp.vec3(groove[0], groove[1], groove[2]) * (2.2 * level)
                deep = groove[3] * level
                albedo = wp.cw_mul(
                    albedo, wp.vec3(1.0 - 0.26 * deep, 1.0 - 0.36 * deep, 1.0 - 0.38 * deep)
                )
            skin += 1.0
            skin_albedo += albedo
            skin_normal += normal
            skin_point += point
            skin_sky += sky
            continue
        ray = wp.normalize(point - view.origin)
        normal = wp.normalize(normal)
        normal = wp.where(wp.dot(normal, ray) > 0.0, -normal, normal)
        if inner_lamp < 0.0:
            inner_lamp = _lamp_reaches(view, shadow, b, point + normal * 0.003 - ray * 0.001, 0.003)
        color = wp.vec3()
        if material == _HAIR:
            color = _hair_color(view, normal, point, ray, uv, level, 0.55 + 0.45 * sky, inner_lamp)
        elif material == _EYE or material == _TEETH or material == _TONGUE:
            covered = _covered(nearest, materials, b, x, y)
            color = _inner_color(view, material, normal, point, ray, uv, covered, inner_lamp)
        else:
            color = _worn_color(view, material, normal, ray, inner_lamp)
        total += wp.vec4(color[0], color[1], color[2], 1.0)
    if skin > 0.0:
        point = skin_point / skin
        ray = wp.normalize(point - view.origin)
        n = wp.normalize(skin_normal)
        n = wp.where(wp.dot(n, ray) > 0.0, -n, n)
        lamp = float(0.0)
        if wp.dot(n, view.light) > -0.3:
            lamp = _lamp_reaches(view, shadow, b, point + n * 0.0035, 0.0025)
        wrap = wp.vec3(0.34, 0.20, 0.15)
        color = _lit(view, skin_albedo / skin, n, ray, skin_sky / skin, lamp, wrap, 0.085, 18.0)
        total += wp.vec4(color[0], color[1], color[2], 1.0) * skin
    image[b, row, column] = total / float(_GRID * _GRID)


# --- ambient occlusion ----------------------------------------------------------------------------


@wp.kernel(enable_backward=False)
def _bake_occlusion(
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    out: wp.array(dtype=float),
):
    i = wp.tid()
    seed = wp.rand_init(i)
    free = float(0.0)
    for _ in range(64):
        way = wp.normalize(normals[i] + wp.sample_unit_sphere_surface(seed))  # cosine-weighted
        hit = wp.mesh_query_ray(mesh, points[i] + normals[i] * 0.001, way, 0.08)
        free += wp.where(hit.result, 0.0, 1.0 / 64.0)
    out[i] = free


@lru_cache(maxsize=2)
def _open_sky(device: str) -> NDArray[np.float32]:
    """(V,) share of the sky that each vertex of the neutral, neutral head sees, 0..1; 1 for the parts
    that are not there."""
    model = head_model()
    points = wp.array(model.neutral, dtype=wp.vec3, device=device)
    neutral = model.triangles[(model.triangles < model.skin_count).all(1)]
    mesh = wp.Mesh(points, wp.array(neutral.ravel(), dtype=wp.int32, device=device))
    normals, out = (
        wp.zeros((1, len(points)), dtype=wp.vec3, device=device),
        wp.zeros(len(points), dtype=float, device=device),
    )
    topology = [
        wp.array(a, dtype=wp.int32, device=device)
        for a in (model.triangles, *_around(model.triangles, len(points)))
    ]
    wp.launch(
        _find_normals,
        (1, len(points)),
        inputs=[points.reshape((1, -1)), *topology, normals],
        device=device,
    )
    wp.launch(
        _bake_occlusion, model.skin_count, inputs=[mesh.id, points, normals[0], out], device=device
    )
    sky = out.numpy()
    sky[model.skin_count :] = 1.0
    return sky


def _around(
    triangles: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The triangles around each vertex: those of vertex i are ``around[first[i] : first[i + 1]]``."""
    vertices = triangles.ravel()
    order = np.argsort(vertices, kind="stable")
    first = np.searchsorted(vertices[order], np.arange(count + 1))
    return first.astype(np.int32), (order // 3).astype(np.int32)


class Renderer:
    """Draws batches of heads at one size. Keeps its buffers, so a frame costs five launches.

    ``size``: pixels; ``batch``: heads per launch.
    """

    def __init__(self, size: int = 112, batch: int = 1, device: str = "cpu"):
        model = head_model()
        self.size, self.batch, self.device = size, batch, device
        self._triangles, self._uv_triangles = (
            self._array(model.triangles, wp.int32),
            self._array(model.uv_triangles, wp.int32),
        )
        self._uv, self._materials = (
            self._array(model.uv, wp.vec2),
            self._array(model.materials, wp.int32),
        )
        self._first, self._around = (
            self._array(a, wp.int32) for a in _around(model.triangles, model.vertex_count)
        )
        self._occlusion = self._array(_open_sky(device), wp.float32)
        self._grooves = self._array(painter().grooves[None], wp.vec4)
        shape = (batch, model.vertex_count)
        self._vertices, self._normals, self._seen, self._lit = (
            wp.zeros(shape, dtype=wp.vec3, device=device) for _ in range(4)
        )
        self._told = wp.zeros(shape, dtype=float, device=device)
        samples = size * int(_GRID)
        self._nearest = wp.zeros((batch, samples, samples), dtype=wp.int64, device=device)
        self._shadow = wp.zeros(
            (batch, int(_SHADOW_SIZE), int(_SHADOW_SIZE)), dtype=float, device=device
        )
        self._image = wp.zeros((batch, size, size), dtype=wp.vec4, device=device)

    def _array(self, values: NDArray, dtype) -> wp.array:
        return wp.array(np.ascontiguousarray(values), dtype=dtype, device=self.device)

    def textures(self, textures: NDArray[np.float32]) -> wp.array:
        """Uploads textures (B, S, S, 3); keep the result while the subjects stay the same."""
        return self._array(textures.astype(np.float32, copy=False), wp.vec3)

    def draw(self, shots: Sequence[Shot], textures: wp.array) -> NDArray[np.float32]:
        """As many shots as the renderer's ``batch`` to premultiplied linear RGB and coverage: (B,
        S, S, 4)."""
        if len(shots) != self.batch:
            raise ValueError(f"this renderer draws {self.batch} heads at a time, got {len(shots)}")
        self._vertices.assign(np.stack([shot.vertices for shot in shots]))
        self._told.assign(np.stack([shot.told for shot in shots]))
        self._nearest.zero_()
        self._shadow.fill_(-1.0)
        views = wp.array([self._view(shot) for shot in shots], dtype=_View, device=self.device)
        many, faces = (self.batch, self._vertices.shape[1]), (self.batch, len(self._triangles))
        mesh = [self._triangles, self._uv_triangles, self._uv, self._materials]
        self._launch(
            _find_normals,
            many,
            self._vertices,
            self._triangles,
            self._first,
            self._around,
            self._normals,
        )
        self._launch(_project, many, views, self._vertices, self._seen, self._lit)
        self._launch(_rasterize, faces, views, self._seen, *mesh, self._told, self._nearest)
        self._launch(_cast, faces, self._lit, self._triangles, self._materials, self._shadow)
        surface = [self._vertices, self._normals, self._seen, self._told, self._occlusion]
        painted = [textures, self._grooves, self._nearest, self._shadow, self._image]
        self._launch(_shade, (self.batch, self.size, self.size), views, *surface, *mesh, *painted)
        return self._image.numpy()

    def _launch(self, kernel, shape: tuple[int, ...], *inputs) -> None:
        wp.launch(kernel, dim=shape, inputs=list(inputs), device=self.device)

    def _view(self, shot: Shot) -> _View:
        origin, right, up, forward = camera_frame(shot.camera)
        view = _View()
        view.origin, view.right, view.up, view.forward = (
            _vec3(v) for v in (origin, right, up, forward)
        )
        to_sample = np.linalg.inv(pixel_to_plane(shot.anchor, shot.camera, self.size))
        to_sample[:2] *= int(_GRID)
        view.to_sample = wp.mat33(*to_sample.ravel())
        direction = (
            np.array(shot.light.direction)
            / np.linalg.norm(shot.light.direction)
            @ np.stack([right, up, -forward])
        )
        light_right = np.cross(direction, (0.0, 0.1, 1.0))
        light_right /= np.linalg.norm(light_right)
        view.light, view.light_right, view.light_up = (
            _vec3(v) for v in (direction, light_right, np.cross(light_right, direction))
        )
        view.light_color = _vec3(shot.light.color)
        view.ambient = _mat43(*np.asarray(shot.light.ambient, float).ravel())
        view.eyes = _mat24(*shot.eyes.astype(float).ravel())
        yaw, pitch = shot.gaze
        view.gaze = wp.vec3(
            np.sin(yaw) * np.cos(pitch), -np.cos(yaw) * np.cos(pitch), np.sin(pitch)
        )
        look = shot.look
        view.iris, view.sclera, view.hair, view.cloth = (
            _vec3(c) for c in (look.iris, look.sclera, look.hair, look.cloth)
        )
        view.strands = look.noise_seed % 100_003
        return view


def _vec3(values) -> wp.vec3:
    return wp.vec3(*map(float, values))


def camera_frame(camera: Camera) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Position and the unit vectors right, up, forward of a camera that looks at the middle of the
    face."""
    center = np.array([0.0, 0.03, -0.03])
    cos, sin = np.cos, np.sin
    away = np.array(
        [
            sin(camera.yaw) * cos(camera.pitch),
            -cos(camera.yaw) * cos(camera.pitch),
            -sin(camera.pitch),
        ]
    )
    forward = -away
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    right, up = (
        cos(camera.roll) * right + sin(camera.roll) * up,
        cos(camera.roll) * up - sin(camera.roll) * right,
    )
    return center + away * camera.distance, right, up, forward


def pixel_to_plane(points: NDArray, camera: Camera, size: int) -> NDArray[np.float64]:
    """(3, 3) map from pixel (x, y, 1) to the image plane, such that the five points (5, 3) of the
    face meet the crop."""
    origin, right, up, forward = camera_frame(camera)
    offset = points - origin
    depth = offset @ forward
    on_plane = np.stack([offset @ right / depth, offset @ up / depth], axis=1)
    crop = NORFACE_CROP.pixels(size) - size / 2
    turn = np.array(
        [(np.cos(camera.tilt), -np.sin(camera.tilt)), (np.sin(camera.tilt), np.cos(camera.tilt))]
    )
    crop = crop @ turn.T * camera.zoom + size / 2 + np.array(camera.shift) * size
    fit = similarity(crop * (1, -1), on_plane)  # rows run down, the image plane runs up
    return np.concatenate([fit * np.array([1, -1, 1]), [[0, 0, 1]]])
