"""Colors of surfaces under the light of a scene: Warp functions for `norface_lib.faces.kernels`.

Skin is lit by spherical-harmonic ambient light times baked occlusion, and by one lamp with wrapped
diffuse (wider in red, as light scatters under skin) and a highlight. Eyes are shaded by direction
from the eyeball's center, so both irises are round and look the same way.
"""

import warp as wp

from norface_lib.faces.head import CLOTH, EYE, FRAME, TEETH

_EYE = wp.constant(EYE)
_TEETH = wp.constant(TEETH)
_CLOTH = wp.constant(CLOTH)
_FRAME = wp.constant(FRAME)
mat43 = wp.types.matrix((4, 3), wp.float32)
mat24 = wp.types.matrix((2, 4), wp.float32)


@wp.struct
class View:
    origin: wp.vec3
    right: wp.vec3
    up: wp.vec3
    forward: wp.vec3
    to_sample: wp.mat33  # image plane at distance 1 (x, y, 1) to samples
    light: wp.vec3
    light_right: wp.vec3
    light_up: wp.vec3
    light_color: wp.vec3
    ambient: mat43
    eyes: mat24
    gaze: wp.vec3
    iris: wp.vec3
    sclera: wp.vec3
    hair: wp.vec3
    cloth: wp.vec3
    strands: wp.uint32  # seed of the pattern of strands


@wp.func
def strand(uv: wp.vec2, seed: wp.uint32, count: float):
    """Smooth noise in 0..1 that runs along strands: fine around the head, long from root to tip."""
    return 0.5 + 0.5 * wp.noise(seed, wp.vec2(uv[0] * count, uv[1] * 5.0)) * 1.4


@wp.func
def _ambient(view: View, n: wp.vec3):
    x, y, z = wp.dot(n, view.right), wp.dot(n, view.up), -wp.dot(n, view.forward)
    a = view.ambient
    light = wp.vec3(a[0, 0], a[0, 1], a[0, 2]) + wp.vec3(a[1, 0], a[1, 1], a[1, 2]) * x
    light += wp.vec3(a[2, 0], a[2, 1], a[2, 2]) * y + wp.vec3(a[3, 0], a[3, 1], a[3, 2]) * z
    return wp.vec3(wp.max(light[0], 0.03), wp.max(light[1], 0.03), wp.max(light[2], 0.03))


@wp.func
def lit(
    view: View,
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
def hair_color(
    view: View,
    n: wp.vec3,
    point: wp.vec3,
    ray: wp.vec3,
    uv: wp.vec2,
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
    streaks = 0.45 + 0.75 * strand(uv, view.strands, 120.0) * (
        0.6 + 0.8 * strand(uv, view.strands, 33.0)
    )
    light = _ambient(view, n) * sky + view.light_color * (across_light * toward * lamp)
    shine = view.light_color * (glance * toward * lamp * 0.35 * streaks)
    return wp.cw_mul(view.hair, light) * streaks + wp.cw_mul(
        view.hair * 0.8 + wp.vec3(0.12, 0.12, 0.12), shine
    )


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
def inner_color(
    view: View,
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
        return lit(
            view, albedo, outward, ray, 0.9 * sky, lamp * (1.0 - 0.7 * covered), wrap, 0.7, 160.0
        )
    wrap = wp.vec3(0.2, 0.1, 0.1)
    if material == _TEETH:
        return lit(view, _tooth(uv), n, ray, 0.75 * sky, lamp * sky, wrap, 0.25, 50.0)
    return lit(view, wp.vec3(0.36, 0.11, 0.10), n, ray, 0.55 * sky, lamp * sky, wrap, 0.1, 20.0)


@wp.func
def worn_color(view: View, material: int, n: wp.vec3, ray: wp.vec3, lamp: float):
    """A garment, and the frame and dark lenses of glasses."""
    if material == _CLOTH:
        return lit(view, view.cloth, n, ray, 0.75, lamp, wp.vec3(0.1, 0.1, 0.1), 0.0, 10.0)
    if material == _FRAME:
        return lit(
            view, wp.vec3(0.03, 0.025, 0.02), n, ray, 0.9, lamp, wp.vec3(0.0, 0.0, 0.0), 0.5, 60.0
        )
    return lit(
        view, wp.vec3(0.015, 0.014, 0.013), n, ray, 1.0, lamp, wp.vec3(0.0, 0.0, 0.0), 0.4, 90.0
    )
