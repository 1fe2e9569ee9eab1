"""Meshes to images: one Warp kernel casts the rays of a whole batch of heads, on a CPU or on CUDA.

For each pixel a small grid of rays finds the nearest triangle; skin is lit by spherical-harmonic ambient light times baked
occlusion, one directional light with wrapped diffuse (wider in red, as light scatters under skin) and a jittered shadow ray,
and a highlight. Eyes are shaded by direction from the eyeball's center, so both irises are round and look the same way.
"""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import warp as wp
from numpy.typing import NDArray

from norface_lib.align import NORFACE_CROP, similarity
from norface_lib.faces.head import EYE, SKIN, TONGUE, Subject, head_model
from norface_lib.faces.skin import Look, painter

_mat43, _mat24 = wp.types.matrix((4, 3), wp.float32), wp.types.matrix((2, 4), wp.float32)
_SKIN, _EYE, _TONGUE = wp.constant(SKIN), wp.constant(EYE), wp.constant(TONGUE)


@dataclass(frozen=True)
class Camera:
    """Where the camera stands and what it frames. Angles in radians, from the head's point of view; distance in meters."""

    yaw: float = 0.0  # positive: the subject turns to the image's left
    pitch: float = 0.0  # positive: the subject looks up
    roll: float = 0.0
    distance: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)  # of the crop, in widths of the image
    zoom: float = 1.0  # above 1 the face is larger than the crop asks for
    tilt: float = 0.0  # rotation of the crop, radians: what an imperfect alignment leaves


@dataclass(frozen=True)
class Light:
    """One directional light and an ambient one, in camera coordinates (x right, y up, z towards the camera)."""

    direction: tuple[float, float, float] = (0.35, 0.5, 0.8)
    color: tuple[float, float, float] = (0.75, 0.73, 0.70)
    ambient: NDArray[np.float32] = field(  # (4, 3): constant and x, y, z terms of a first-order spherical harmonic, RGB
        default_factory=lambda: np.array([(0.42,) * 3, (0.0,) * 3, (0.10,) * 3, (0.08,) * 3], np.float32)
    )


@wp.struct
class _View:
    origin: wp.vec3
    right: wp.vec3
    up: wp.vec3
    forward: wp.vec3
    plane: wp.mat33  # pixel (x, y, 1) to position on the image plane at distance 1
    light: wp.vec3
    light_color: wp.vec3
    ambient: _mat43
    eyes: _mat24
    gaze: wp.vec3
    iris: wp.vec3
    sclera: wp.vec3


@wp.func
def _texel(texture: wp.array3d(dtype=wp.vec3), b: int, uv: wp.vec2):
    size = texture.shape[1]
    x = wp.clamp(uv[0] * float(size) - 0.5, 0.0, float(size) - 1.001)
    y = wp.clamp(uv[1] * float(size) - 0.5, 0.0, float(size) - 1.001)
    i, j = int(x), int(y)
    fx, fy = x - float(i), y - float(j)
    top = texture[b, j, i] * (1.0 - fx) + texture[b, j, i + 1] * fx
    bottom = texture[b, j + 1, i] * (1.0 - fx) + texture[b, j + 1, i + 1] * fx
    return top * (1.0 - fy) + bottom * fy


@wp.func
def _eye_color(outward: wp.vec3, gaze: wp.vec3, iris: wp.vec3, sclera: wp.vec3):
    angle = wp.acos(wp.clamp(wp.dot(outward, gaze), -1.0, 1.0))
    edge = wp.smoothstep(0.40, 0.44, angle)  # an iris is 11.7 mm wide on a ball of 24 mm: 0.42 rad from its middle
    ring = iris * (1.15 - 0.75 * wp.smoothstep(0.30, 0.42, angle))
    pupil = wp.smoothstep(0.13, 0.17, angle)
    return sclera * edge + ring * ((1.0 - edge) * pupil) + wp.vec3(0.008, 0.007, 0.007) * ((1.0 - edge) * (1.0 - pupil))


@wp.func
def _ambient(view: _View, n: wp.vec3):
    x, y, z = wp.dot(n, view.right), wp.dot(n, view.up), -wp.dot(n, view.forward)
    a = view.ambient
    light = wp.vec3(a[0, 0], a[0, 1], a[0, 2]) + wp.vec3(a[1, 0], a[1, 1], a[1, 2]) * x
    light += wp.vec3(a[2, 0], a[2, 1], a[2, 2]) * y + wp.vec3(a[3, 0], a[3, 1], a[3, 2]) * z
    return wp.vec3(wp.max(light[0], 0.03), wp.max(light[1], 0.03), wp.max(light[2], 0.03))


@wp.struct
class _Surface:
    normal: wp.vec3
    albedo: wp.vec3
    scatter: wp.vec3  # how far light wraps round, RGB
    open_sky: float
    shine: float
    gloss: float


@wp.func
def _surface(
    view: _View,
    point: wp.vec3,
    ray: wp.vec3,
    normal: wp.vec3,
    material: wp.int32,
    corner: wp.vec3i,
    weight: wp.vec3,
    occlusion: wp.array(dtype=float),
    uvs: wp.array(dtype=wp.vec2),
    textures: wp.array3d(dtype=wp.vec3),
    b: int,
    mesh: wp.uint64,
    seed: wp.uint32,
):
    s = _Surface()
    s.normal = wp.where(wp.dot(normal, ray) > 0.0, -normal, normal)
    s.scatter = wp.vec3(0.30, 0.18, 0.14)
    s.shine = 0.10
    s.gloss = 22.0
    s.open_sky = occlusion[corner[0]] * weight[0] + occlusion[corner[1]] * weight[1] + occlusion[corner[2]] * weight[2]
    if material == _SKIN:
        uv = uvs[corner[0]] * weight[0] + uvs[corner[1]] * weight[1] + uvs[corner[2]] * weight[2]
        s.albedo = _texel(textures, b, uv)
    elif material == _EYE:
        side = wp.where(point[0] > 0.0, 0, 1)
        s.normal = wp.normalize(point - wp.vec3(view.eyes[side, 0], view.eyes[side, 1], view.eyes[side, 2]))
        s.albedo = _eye_color(s.normal, view.gaze, view.iris, view.sclera)
        s.scatter = wp.vec3(0.1, 0.1, 0.1)
        s.open_sky = 0.85
        s.shine = 0.75
        s.gloss = 180.0
    elif material == _TONGUE:
        s.albedo = wp.vec3(0.34, 0.10, 0.09)
        s.open_sky = 0.5
    else:
        s.albedo = wp.vec3(0.62, 0.57, 0.49)
        s.open_sky = 0.7
        s.shine = 0.25
    if material != _SKIN:  # lids and lips move over eyes and mouth, so their shade is cast, not baked
        above = wp.normalize(-view.forward + view.up * 0.9 + wp.sample_unit_hemisphere(seed) * 0.5)
        if wp.mesh_query_ray_anyhit(mesh, point - ray * 0.0008, above, 0.03):
            s.open_sky *= 0.42
    return s


@wp.func
def _shade(view: _View, s: _Surface, ray: wp.vec3, facing: float, lit: float):
    half = wp.normalize(view.light - ray)
    spark = wp.pow(wp.max(wp.dot(s.normal, half), 0.0), s.gloss) * s.shine * lit
    wrapped = wp.cw_div(wp.vec3(facing, facing, facing) + s.scatter, wp.vec3(1.0, 1.0, 1.0) + s.scatter)
    shadow = wp.vec3(0.10, 0.03, 0.02) + wp.vec3(0.90, 0.97, 0.98) * lit  # light bleeds red into a shadow on skin
    diffuse = wp.cw_mul(wp.max(wrapped, wp.vec3(0.0, 0.0, 0.0)), shadow)
    light = _ambient(view, s.normal) * s.open_sky + wp.cw_mul(view.light_color, diffuse)
    return wp.cw_mul(s.albedo, light) + view.light_color * spark


@wp.kernel(enable_backward=False)
def _draw(
    meshes: wp.array(dtype=wp.uint64),
    views: wp.array(dtype=_View),
    normals: wp.array2d(dtype=wp.vec3),
    occlusion: wp.array(dtype=float),
    uvs: wp.array(dtype=wp.vec2),
    triangles: wp.array(dtype=wp.int32),
    materials: wp.array(dtype=wp.int32),
    textures: wp.array3d(dtype=wp.vec3),
    grid: int,
    image: wp.array3d(dtype=wp.vec4),
):
    b, row, column = wp.tid()
    view = views[b]
    seed = wp.rand_init(row * image.shape[2] + column)  # the same jitter in every frame: noise must carry no label
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    first = wp.vec4(0.0, 0.0, 0.0, 0.0)
    apart = float(0.0)
    lit = float(-1.0)
    samples = grid * grid
    n = int(0)
    while n < samples:
        # a Latin square: the first ``grid`` rays lie on the diagonal; where they agree, the others would too
        i = n % grid
        j = (i + n // grid) % grid
        px = float(column) + (float(i) + 0.5) / float(grid)
        py = float(row) + (float(j) + 0.5) / float(grid)
        at = view.plane * wp.vec3(px, py, 1.0)
        ray = wp.normalize(view.forward + view.right * at[0] + view.up * at[1])
        color = wp.vec4(0.0, 0.0, 0.0, 0.0)
        hit = wp.mesh_query_ray(meshes[b], view.origin, ray, 10.0)
        if hit.result:
            point = view.origin + ray * hit.t
            corner = wp.vec3i(triangles[3 * hit.face], triangles[3 * hit.face + 1], triangles[3 * hit.face + 2])
            weight = wp.vec3(hit.u, hit.v, 1.0 - hit.u - hit.v)
            normal = normals[b, corner[0]] * weight[0] + normals[b, corner[1]] * weight[1] + normals[b, corner[2]] * weight[2]
            material = materials[hit.face]
            surface = _surface(
                view, point, ray, wp.normalize(normal), material, corner, weight, occlusion, uvs, textures, b, meshes[b], seed
            )
            facing = wp.dot(surface.normal, view.light)
            if facing < -0.12:
                lit = 0.0
            elif n % 2 == 0 or lit < 0.0:  # neighboring rays share a shadow ray
                jitter = wp.vec3(wp.randf(seed) - 0.5, wp.randf(seed) - 0.5, wp.randf(seed) - 0.5) * 0.16
                toward = wp.normalize(view.light + jitter)
                lit = wp.where(wp.mesh_query_ray_anyhit(meshes[b], point + surface.normal * 0.0012, toward, 0.3), 0.0, 1.0)
            rgb = _shade(view, surface, ray, facing, lit)
            color = wp.vec4(rgb[0], rgb[1], rgb[2], 1.0)
        total += color
        if n == 0:
            first = color
        else:
            difference = color - first
            apart = wp.max(apart, wp.dot(difference, difference))
        n += 1
        if n == grid and apart < 0.0009:  # 0.03 in linear light
            break
    image[b, row, column] = total / float(n)


@wp.kernel(enable_backward=False)
def _bake_occlusion(
    mesh: wp.uint64, points: wp.array(dtype=wp.vec3), normals: wp.array(dtype=wp.vec3), out: wp.array(dtype=float)
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
    """(V,) share of the sky that each vertex of the neutral head sees, 0..1."""
    model = head_model()
    points, normals = (wp.array(a, dtype=wp.vec3, device=device) for a in (model.neutral, model.normals(model.neutral)))
    mesh = wp.Mesh(points, wp.array(model.triangles.ravel(), dtype=wp.int32, device=device))
    out = wp.zeros(len(points), dtype=float, device=device)
    wp.launch(_bake_occlusion, len(points), inputs=[mesh.id, points, normals, out], device=device)
    return out.numpy()


def with_hair(subject: Subject, look: Look) -> Subject:
    """The subject with hair as volume: the scalp is pushed out along its normals where hair grows."""
    model = head_model()
    amount = painter().hair_amount(look, model.neutral, edge=0.010) * (model.vertex_mask("ears") < 0.2)
    amount[model.triangles[model.materials != SKIN]] = 0
    grown = subject.vertices + model.normals(subject.vertices) * (amount * look.hair_volume)[:, None]
    return Subject(grown.astype(np.float32), subject.phenotype)


class Renderer:
    """Draws batches of heads at one size. Keeps its buffers, so a frame costs a refit of the mesh and one launch.

    ``size``: pixels; ``batch``: heads per launch; ``grid``: rays along each side of a pixel.
    """

    def __init__(self, size: int = 112, batch: int = 1, grid: int = 2, device: str = "cpu"):
        model = head_model()
        self.size, self.batch, self.grid, self.device = size, batch, grid, device
        self._index = wp.array(model.split_triangles.ravel(), dtype=wp.int32, device=device)
        self._materials = wp.array(model.materials, dtype=wp.int32, device=device)
        self._uv = wp.array(model.split_uv, dtype=wp.vec2, device=device)
        self._occlusion = wp.array(_open_sky(device)[model.split_vertex], dtype=float, device=device)
        self._normals = wp.zeros((batch, len(model.split_vertex)), dtype=wp.vec3, device=device)
        self._image = wp.zeros((batch, size, size), dtype=wp.vec4, device=device)
        start = model.neutral[model.split_vertex]
        self._meshes = [wp.Mesh(wp.array(start, dtype=wp.vec3, device=device), self._index) for _ in range(batch)]
        self._mesh_ids = wp.array([mesh.id for mesh in self._meshes], dtype=wp.uint64, device=device)

    def textures(self, textures: NDArray[np.float32]) -> wp.array:
        """Uploads textures (B, S, S, 3); keep the result while the subjects stay the same."""
        return wp.array(np.ascontiguousarray(textures, np.float32), dtype=wp.vec3, device=self.device)

    def draw(self, vertices, textures: wp.array, looks, cameras, lights, gazes=None, anchors=None) -> NDArray[np.float32]:
        """Heads to premultiplied linear RGB and coverage: (B, S, S, 4).

        ``vertices``: B arrays (V, 3); ``looks``, ``cameras``, ``lights``: B each; ``gazes``: B pairs (yaw, pitch) in radians,
        or None for straight ahead; ``anchors``: B point sets (5, 3) that meet the crop, or None for the face's own.
        """
        model = head_model()
        gazes = [(0.0, 0.0)] * self.batch if gazes is None else gazes
        normals = np.stack([model.normals(v)[model.split_vertex] for v in vertices])
        self._normals.assign(normals)
        for mesh, v in zip(self._meshes, vertices, strict=True):
            mesh.points.assign(np.ascontiguousarray(v[model.split_vertex], np.float32))
            mesh.refit()
        anchors = [model.five_points(v) for v in vertices] if anchors is None else anchors
        views = [self._view(*parts) for parts in zip(vertices, looks, cameras, lights, gazes, anchors, strict=True)]
        wp.launch(
            _draw,
            dim=(self.batch, self.size, self.size),
            inputs=[self._mesh_ids, wp.array(views, dtype=_View, device=self.device), self._normals, self._occlusion]
            + [self._uv, self._index, self._materials, textures, self.grid, self._image],
            device=self.device,
        )
        return self._image.numpy()

    def _view(self, vertices, look: Look, camera: Camera, light: Light, gaze, anchor) -> _View:
        model = head_model()
        origin, right, up, forward = camera_frame(camera)
        eyes = model.eyeballs(vertices)
        view = _View()
        view.origin, view.right, view.up, view.forward = (wp.vec3(*map(float, v)) for v in (origin, right, up, forward))
        view.plane = wp.mat33(*pixel_to_plane(anchor, camera, self.size).ravel())
        direction = np.array(light.direction) / np.linalg.norm(light.direction)
        view.light = wp.vec3(*map(float, direction @ np.stack([right, up, -forward])))
        view.light_color = wp.vec3(*map(float, light.color))
        view.ambient = _mat43(*np.asarray(light.ambient, float).ravel())
        view.eyes = _mat24(*eyes.astype(float).ravel())
        yaw, pitch = gaze
        view.gaze = wp.vec3(np.sin(yaw) * np.cos(pitch), -np.cos(yaw) * np.cos(pitch), np.sin(pitch))
        view.iris, view.sclera = wp.vec3(*map(float, look.iris)), wp.vec3(*map(float, look.sclera))
        return view


def camera_frame(camera: Camera) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Position and the unit vectors right, up, forward of a camera that looks at the middle of the face."""
    center = np.array([0.0, 0.03, -0.03])
    cos, sin = np.cos, np.sin
    away = np.array([sin(camera.yaw) * cos(camera.pitch), -cos(camera.yaw) * cos(camera.pitch), -sin(camera.pitch)])
    forward = -away
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    right, up = cos(camera.roll) * right + sin(camera.roll) * up, cos(camera.roll) * up - sin(camera.roll) * right
    return center + away * camera.distance, right, up, forward


def pixel_to_plane(points: NDArray, camera: Camera, size: int) -> NDArray[np.float64]:
    """(3, 3) map from pixel (x, y, 1) to the image plane, such that the five points (5, 3) of the face meet the crop."""
    origin, right, up, forward = camera_frame(camera)
    offset = points - origin
    depth = offset @ forward
    on_plane = np.stack([offset @ right / depth, offset @ up / depth], axis=1)
    crop = NORFACE_CROP.pixels(size) - size / 2
    turn = np.array([(np.cos(camera.tilt), -np.sin(camera.tilt)), (np.sin(camera.tilt), np.cos(camera.tilt))])
    crop = crop @ turn.T * camera.zoom + size / 2 + np.array(camera.shift) * size
    fit = similarity(crop * (1, -1), on_plane)  # rows run down, the image plane runs up
    return np.concatenate([fit * np.array([1, -1, 1]), [[0, 0, 1]]])
