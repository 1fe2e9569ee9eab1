"""Warp kernels that render heads, on a CPU or on CUDA.

Triangles are projected and kept where they are nearest, four samples a pixel (hair is thinned to
strands there); the same is done from the lamp for its soft shadow. Then every pixel is shaded: skin
samples together, everything else each on its own. Casting rays instead took longer, for the same
picture with noisier shadows.
"""

from typing import Any

import warp as wp

from norface_lib.faces.head import EYE, HAIR, SKIN, TEETH, TONGUE
from norface_lib.faces.shading import View, hair_color, inner_color, lit, strand, worn_color

_SKIN = wp.constant(SKIN)
_EYE = wp.constant(EYE)
_TONGUE = wp.constant(TONGUE)
_TEETH = wp.constant(TEETH)
_HAIR = wp.constant(HAIR)
GRID = wp.constant(2)  # samples along each side of a pixel
SHADOW_SIZE = wp.constant(144)  # texels along a side of the lamp's picture
_SHADOW_REACH = wp.constant(0.17)  # half its width in meters
_FEATHER = wp.constant(0.010)  # meters from its tips within which hair thins out
_FACE_BITS = wp.constant(wp.int64(1 << 32))

# --- vertices -------------------------------------------------------------------------------------


@wp.kernel(enable_backward=False)
def find_normals(
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
def project(
    views: wp.array(dtype=View),
    vertices: wp.array2d(dtype=wp.vec3),
    projected: wp.array2d(dtype=wp.vec3),
    lamp_view: wp.array2d(dtype=wp.vec3),
):
    """Vertices as the camera sees them (sample x, y, 1 / depth), and as the lamp does (texel x, y,
    nearness in meters)."""
    b, i = wp.tid()
    view = views[b]
    offset = vertices[b, i] - view.origin
    depth = wp.max(wp.dot(offset, view.forward), 0.05)
    projected[b, i] = view.to_sample * wp.vec3(
        wp.dot(offset, view.right) / depth, wp.dot(offset, view.up) / depth, 1.0
    )
    projected[b, i][2] = 1.0 / depth
    lamp_view[b, i] = _lamp_place(view, vertices[b, i])


@wp.func
def _lamp_place(view: View, point: wp.vec3):
    """A point as the lamp sees it: texel x, y, nearness in meters."""
    p = point - wp.vec3(0.0, 0.04, -0.02)
    scale = 0.5 * float(SHADOW_SIZE) / _SHADOW_REACH
    middle = 0.5 * float(SHADOW_SIZE)
    return wp.vec3(
        wp.dot(p, view.light_right) * scale + middle,
        wp.dot(p, view.light_up) * scale + middle,
        wp.dot(p, view.light),
    )


# --- the nearest triangle at each sample ----------------------------------------------------------


@wp.func
def _area(p: wp.vec3, q: wp.vec3, r: wp.vec3):
    """Twice the area of a projected triangle; rows run down, so it is negative for one that faces
    the camera."""
    return (q[0] - p[0]) * (r[1] - p[1]) - (r[0] - p[0]) * (q[1] - p[1])


@wp.func
def _weights(p: wp.vec3, q: wp.vec3, r: wp.vec3, area: float, x: float, y: float):
    """Barycentric weights of a place (x, y); all are positive inside."""
    v = ((x - p[0]) * (r[1] - p[1]) - (r[0] - p[0]) * (y - p[1])) / area
    w = ((q[0] - p[0]) * (y - p[1]) - (x - p[0]) * (q[1] - p[1])) / area
    return wp.vec3(1.0 - v - w, v, w)


@wp.func
def _mean(p: Any, q: Any, r: Any, at: wp.vec3):
    """Weighted mean of the values at a triangle's corners."""
    return p * at[0] + q * at[1] + r * at[2]


@wp.func
def _box(p: wp.vec3, q: wp.vec3, r: wp.vec3, side: int):
    """First and last column, first and last row of the samples that a triangle may cover."""
    return wp.vec4i(
        wp.max(int(wp.ceil(wp.min(p[0], wp.min(q[0], r[0])) - 0.5)), 0),
        wp.min(int(wp.floor(wp.max(p[0], wp.max(q[0], r[0])) - 0.5)), side - 1),
        wp.max(int(wp.ceil(wp.min(p[1], wp.min(q[1], r[1])) - 0.5)), 0),
        wp.min(int(wp.floor(wp.max(p[1], wp.max(q[1], r[1])) - 0.5)), side - 1),
    )


@wp.kernel(enable_backward=False)
def rasterize(
    views: wp.array(dtype=View),
    projected: wp.array2d(dtype=wp.vec3),
    triangles: wp.array2d(dtype=wp.int32),
    uv_triangles: wp.array2d(dtype=wp.int32),
    uvs: wp.array(dtype=wp.vec2),
    materials: wp.array(dtype=wp.int32),
    attribute: wp.array2d(dtype=float),
    nearest: wp.array3d(dtype=wp.int64),
):
    """Keeps the nearest triangle at each sample: 1 / depth in the upper bits, the triangle's number
    in the lower ones."""
    b, t = wp.tid()
    i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    p, q, r = projected[b, i], projected[b, j], projected[b, k]
    material = materials[t]
    area = _area(p, q, r)
    closed = material == _SKIN or material == _EYE
    if wp.abs(area) < 1.0e-9 or (closed and area > 0.0):  # the back never shows
        return

    box = _box(p, q, r, nearest.shape[1])
    for y in range(box[2], box[3] + 1):
        for x in range(box[0], box[1] + 1):
            at = _weights(p, q, r, area, float(x) + 0.5, float(y) + 0.5)
            if at[0] < 0.0 or at[1] < 0.0 or at[2] < 0.0:
                continue
            inverse = at[0] * p[2] + at[1] * q[2] + at[2] * r[2]
            if material == _HAIR:
                at = wp.vec3(at[0] * p[2], at[1] * q[2], at[2] * r[2]) / inverse
                tip = _mean(attribute[b, i], attribute[b, j], attribute[b, k], at)
                if tip < _FEATHER:
                    uv = _mean(
                        uvs[uv_triangles[t, 0]],
                        uvs[uv_triangles[t, 1]],
                        uvs[uv_triangles[t, 2]],
                        at,
                    )
                    if strand(uv, views[b].strands, 420.0) > 0.1 + 0.95 * tip / _FEATHER:
                        continue
            key = wp.int64(inverse * 2.0e8) * _FACE_BITS + wp.int64(t)
            wp.atomic_max(nearest, b, y, x, key)


@wp.kernel(enable_backward=False)
def cast_shadow(
    lamp_view: wp.array2d(dtype=wp.vec3),
    triangles: wp.array2d(dtype=wp.int32),
    materials: wp.array(dtype=wp.int32),
    shadow: wp.array3d(dtype=float),
):
    """Keeps how near to the lamp the nearest surface is, at each texel of the lamp's picture."""
    b, t = wp.tid()
    material = materials[t]
    if material == _EYE or material == _TONGUE or material == _TEETH:
        return
    i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
    p, q, r = lamp_view[b, i], lamp_view[b, j], lamp_view[b, k]
    area = _area(p, q, r)
    # the side away from the lamp casts the same shadow
    if wp.abs(area) < 1.0e-9 or (material == _SKIN and area < 0.0):
        return

    box = _box(p, q, r, SHADOW_SIZE)
    for y in range(box[2], box[3] + 1):
        for x in range(box[0], box[1] + 1):
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
def _lamp_reaches(view: View, shadow: wp.array3d(dtype=float), b: int, point: wp.vec3, bias: float):
    """Share 0..1 of the lamp that a point sees: the mean over 4 x 4 texels, weighted so that it
    changes smoothly."""
    at = _lamp_place(view, point)
    x, y = at[0] - 2.0, at[1] - 2.0
    i, j = int(wp.floor(x)), int(wp.floor(y))
    fx, fy = x - float(i), y - float(j)
    if i < 0 or j < 0 or i + 4 >= SHADOW_SIZE or j + 4 >= SHADOW_SIZE:
        return 1.0
    free = float(0.0)
    for row in range(5):
        wy = wp.where(row == 0, 1.0 - fy, wp.where(row == 4, fy, 1.0))
        for column in range(5):
            wx = wp.where(column == 0, 1.0 - fx, wp.where(column == 4, fx, 1.0))
            free += wp.where(shadow[b, j + row, i + column] > at[2] + bias, 0.0, wx * wy)
    return free / 16.0


@wp.func
def _covered(
    nearest: wp.array3d(dtype=wp.int64), materials: wp.array(dtype=wp.int32), b: int, x: int, y: int
):
    """Nearness 0..1 of skin above a sample: lids and lips shade what they nearly cover."""
    covered = float(0.0)
    steps = wp.max(1, nearest.shape[1] // 40)
    for step in range(1, steps + 1):
        above = nearest[b, wp.max(y - step, 0), x]
        if above != wp.int64(0) and materials[int(above % _FACE_BITS)] == _SKIN:
            covered = wp.max(covered, 1.0 - float(step - 1) / float(steps))
    return covered


@wp.kernel(enable_backward=False)
def shade(
    views: wp.array(dtype=View),
    vertices: wp.array2d(dtype=wp.vec3),
    normals: wp.array2d(dtype=wp.vec3),
    projected: wp.array2d(dtype=wp.vec3),
    attribute: wp.array2d(dtype=float),
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
    """Mean premultiplied linear RGB and coverage of the samples of each pixel."""
    b, row, column = wp.tid()
    view = views[b]
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    skin = float(0.0)
    skin_albedo = wp.vec3()
    skin_normal = wp.vec3()
    skin_point = wp.vec3()
    skin_sky = float(0.0)
    inner_lamp = float(-1.0)

    for sample in range(GRID * GRID):
        x = column * GRID + sample % GRID
        y = row * GRID + sample // GRID
        key = nearest[b, y, x]
        if key == wp.int64(0):
            continue

        t = int(key % _FACE_BITS)
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        p, q, r = projected[b, i], projected[b, j], projected[b, k]
        at = _weights(p, q, r, _area(p, q, r), float(x) + 0.5, float(y) + 0.5)
        at = wp.vec3(at[0] * p[2], at[1] * q[2], at[2] * r[2])
        at = at / (at[0] + at[1] + at[2])
        point = _mean(vertices[b, i], vertices[b, j], vertices[b, k], at)
        normal = _mean(normals[b, i], normals[b, j], normals[b, k], at)
        uv = _mean(uvs[uv_triangles[t, 0]], uvs[uv_triangles[t, 1]], uvs[uv_triangles[t, 2]], at)
        sky = _mean(occlusion[i], occlusion[j], occlusion[k], at)

        material = materials[t]
        if material == _SKIN:
            albedo = _texel(textures, b, uv)
            level = _mean(attribute[b, i], attribute[b, j], attribute[b, k], at)
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
            color = hair_color(view, normal, point, ray, uv, 0.55 + 0.45 * sky, inner_lamp)
        elif material == _EYE or material == _TEETH or material == _TONGUE:
            covered = _covered(nearest, materials, b, x, y)
            color = inner_color(view, material, normal, point, ray, uv, covered, inner_lamp)
        else:
            color = worn_color(view, material, normal, ray, inner_lamp)
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
        color = lit(view, skin_albedo / skin, n, ray, skin_sky / skin, lamp, wrap, 0.085, 18.0)
        total += wp.vec4(color[0], color[1], color[2], 1.0) * skin
    image[b, row, column] = total / float(GRID * GRID)


# --- ambient occlusion ----------------------------------------------------------------------------


@wp.kernel(enable_backward=False)
def bake_occlusion(
    mesh: wp.uint64,
    points: wp.array(dtype=wp.vec3),
    normals: wp.array(dtype=wp.vec3),
    sky: wp.array(dtype=float),
):
    """Share of the sky that each point sees: rays that meet nothing within 8 cm, 64 of them."""
    i = wp.tid()
    seed = wp.rand_init(i)
    free = float(0.0)
    for _ in range(64):
        direction = wp.normalize(
            normals[i] + wp.sample_unit_sphere_surface(seed)
        )  # cosine-weighted
        hit = wp.mesh_query_ray(mesh, points[i] + normals[i] * 0.001, direction, 0.08)
        free += wp.where(hit.result, 0.0, 1.0 / 64.0)
    sky[i] = free
