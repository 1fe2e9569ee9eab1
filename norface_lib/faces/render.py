"""Renders batches of heads with the Warp kernels of `norface_lib.faces.kernels`."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import warp as wp
from numpy.typing import NDArray

from norface_lib.faces import kernels, shading
from norface_lib.faces.first_use import compile_once
from norface_lib.faces.head import head_model
from norface_lib.faces.scene import Light, Shot, camera_frame, pixel_to_plane
from norface_lib.faces.skin import painter


class Renderer:
    """Renders batches of heads at one size. Keeps its buffers, so a frame costs five launches.

    ``size``: pixels; ``batch``: heads per launch. On a machine's first use of ``device`` Warp
    compiles the kernels, which is announced on stderr.
    """

    def __init__(self, size: int = 112, batch: int = 1, device: str = "cpu"):
        model = head_model()
        self.size = size
        self.batch = batch
        self.device = device
        compile_once(
            "renderer", (kernels, shading), device, lambda: wp.load_module(kernels, device)
        )

        self._triangles = self._array(model.triangles, wp.int32)
        self._uv_triangles = self._array(model.uv_triangles, wp.int32)
        self._uv = self._array(model.uv, wp.vec2)
        self._materials = self._array(model.materials, wp.int32)
        first, around = _triangles_around(model.triangles, model.vertex_count)
        self._first = self._array(first, wp.int32)
        self._around = self._array(around, wp.int32)
        self._occlusion = self._array(_open_sky(device), wp.float32)
        self._grooves = self._array(painter().grooves[None], wp.vec4)

        self._vertices = self._buffer(wp.vec3, model.vertex_count)
        self._normals = self._buffer(wp.vec3, model.vertex_count)
        self._projected = self._buffer(wp.vec3, model.vertex_count)
        self._lamp_view = self._buffer(wp.vec3, model.vertex_count)
        self._attribute = self._buffer(float, model.vertex_count)
        samples = size * int(kernels.GRID)
        self._nearest = self._buffer(wp.int64, samples, samples)
        texels = int(kernels.SHADOW_SIZE)
        self._shadow = self._buffer(float, texels, texels)
        self._image = self._buffer(wp.vec4, size, size)

    def _array(self, values: NDArray, dtype) -> wp.array:
        return wp.array(np.ascontiguousarray(values), dtype=dtype, device=self.device)

    def _buffer(self, dtype, *shape: int) -> wp.array:
        """Zeros (B, *shape)."""
        return wp.zeros((self.batch, *shape), dtype=dtype, device=self.device)

    def textures(self, textures: NDArray[np.float32]) -> wp.array:
        """Uploads textures (B, S, S, 3); keep the result while the subjects stay the same."""
        return self._array(textures.astype(np.float32, copy=False), wp.vec3)

    def render(self, shots: Sequence[Shot], textures: wp.array) -> NDArray[np.float32]:
        """As many shots as the renderer's ``batch`` to premultiplied linear RGB and coverage: (B,
        S, S, 4)."""
        if len(shots) != self.batch:
            raise ValueError(
                f"this renderer renders {self.batch} heads at a time, got {len(shots)}"
            )
        self._vertices.assign(np.stack([shot.vertices for shot in shots]))
        self._attribute.assign(np.stack([shot.attribute for shot in shots]))
        self._nearest.zero_()
        self._shadow.fill_(-1.0)
        views = [_view(shot, self.size) for shot in shots]
        views = wp.array(views, dtype=shading.View, device=self.device)

        of_vertices = self._vertices.shape
        of_triangles = (self.batch, len(self._triangles))
        mesh = [self._triangles, self._uv_triangles, self._uv, self._materials]
        around = [self._triangles, self._first, self._around]
        self._launch(kernels.find_normals, of_vertices, self._vertices, *around, self._normals)
        projections = [self._projected, self._lamp_view]
        self._launch(kernels.project, of_vertices, views, self._vertices, *projections)
        samples = [self._attribute, self._nearest]
        self._launch(kernels.rasterize, of_triangles, views, self._projected, *mesh, *samples)
        shadow = [self._triangles, self._materials, self._shadow]
        self._launch(kernels.cast_shadow, of_triangles, self._lamp_view, *shadow)

        surface = [self._vertices, self._normals, self._projected, self._attribute, self._occlusion]
        painted = [textures, self._grooves, self._nearest, self._shadow, self._image]
        self._launch(kernels.shade, self._image.shape, views, *surface, *mesh, *painted)
        return self._image.numpy()

    def _launch(self, kernel, shape: tuple[int, ...], *inputs) -> None:
        wp.launch(kernel, dim=shape, inputs=list(inputs), device=self.device)


@lru_cache(maxsize=2)
def _open_sky(device: str) -> NDArray[np.float32]:
    """(V,) share of the sky that each vertex of the neutral head without parts sees, 0..1; 1 for
    the parts."""
    model = head_model()
    points = wp.array(model.neutral, dtype=wp.vec3, device=device)
    skin = model.triangles[(model.triangles < model.skin_count).all(1)]
    mesh = wp.Mesh(points, wp.array(skin.ravel(), dtype=wp.int32, device=device))
    normals = wp.zeros((1, len(points)), dtype=wp.vec3, device=device)
    sky = wp.zeros(len(points), dtype=float, device=device)

    around = [
        wp.array(indices, dtype=wp.int32, device=device)
        for indices in (model.triangles, *_triangles_around(model.triangles, len(points)))
    ]
    wp.launch(
        kernels.find_normals,
        (1, len(points)),
        inputs=[points.reshape((1, -1)), *around, normals],
        device=device,
    )
    wp.launch(
        kernels.bake_occlusion,
        model.skin_count,
        inputs=[mesh.id, points, normals[0], sky],
        device=device,
    )
    sky = sky.numpy()
    sky[model.skin_count :] = 1.0
    return sky


def _triangles_around(
    triangles: NDArray[np.int32], count: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Triangles around each vertex: those of vertex i are ``around[first[i] : first[i + 1]]``."""
    vertices = triangles.ravel()
    order = np.argsort(vertices, kind="stable")
    first = np.searchsorted(vertices[order], np.arange(count + 1))
    return first.astype(np.int32), (order // 3).astype(np.int32)


def _view(shot: Shot, size: int) -> shading.View:
    """A shot's camera, light and colors as the kernels read them."""
    view = shading.View()
    origin, right, up, forward = camera_frame(shot.camera)
    view.origin = _vec3(origin)
    view.right = _vec3(right)
    view.up = _vec3(up)
    view.forward = _vec3(forward)
    to_sample = np.linalg.inv(pixel_to_plane(shot.anchor, shot.camera, size))
    to_sample[:2] *= int(kernels.GRID)
    view.to_sample = wp.mat33(*to_sample.ravel())

    _set_light(view, shot.light, np.stack([right, up, -forward]))
    yaw, pitch = shot.gaze
    view.gaze = wp.vec3(np.sin(yaw) * np.cos(pitch), -np.cos(yaw) * np.cos(pitch), np.sin(pitch))

    view.eyes = shading.mat24(*shot.eyes.astype(float).ravel())
    view.iris = _vec3(shot.look.iris)
    view.sclera = _vec3(shot.look.sclera)
    view.hair = _vec3(shot.look.hair)
    view.cloth = _vec3(shot.look.cloth)
    view.strands = shot.look.noise_seed % 100_003
    return view


def _set_light(view: shading.View, light: Light, axes: NDArray) -> None:
    """Sets the light of a view. ``axes``: (3, 3) right, up and backward of the camera."""
    direction = np.array(light.direction) / np.linalg.norm(light.direction) @ axes
    light_right = np.cross(direction, (0.0, 0.1, 1.0))
    light_right /= np.linalg.norm(light_right)
    view.light = _vec3(direction)
    view.light_right = _vec3(light_right)
    view.light_up = _vec3(np.cross(light_right, direction))
    view.light_color = _vec3(light.color)
    view.ambient = shading.mat43(*np.asarray(light.ambient, float).ravel())


def _vec3(values) -> wp.vec3:
    return wp.vec3(*map(float, values))
