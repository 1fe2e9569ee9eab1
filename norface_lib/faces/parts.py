"""Parts that a face has beside its skin: teeth, hair as geometry, glasses, a garment. Plain
geometry, arrays in and out.

Every part has the same vertices and triangles for every subject, so that one topology serves all; a
part that a subject lacks is collapsed to a point inside the head. Coordinates as in `head`: meters,
x to the subject's left, -y forward, z up.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import Delaunay

Points = NDArray[np.float32]

HIDDEN = np.array([0.0, 0.08, 0.0], np.float32)
"""Place inside the head of all vertices of an absent part."""


@dataclass(frozen=True)
class Mesh:
    """Vertices (V, 3), triangles (T, 3), and a texture coordinate (V, 2) in 0..1 per vertex."""

    vertices: Points
    triangles: NDArray[np.int32]
    uv: Points


def _grid(rows: int, columns: int) -> tuple[NDArray[np.int32], Points]:
    """Triangles and texture coordinates (u along columns, v along rows) of a sheet of rows x
    columns vertices."""
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + columns, a + 1], 1), np.stack([a + 1, a + columns, a + columns + 1], 1)]
    )
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    return triangles.astype(np.int32), np.stack([u.ravel(), v.ravel()], 1).astype(np.float32)


# --- teeth ----------------------------------------------------------------------------------------

TEETH_PARTING = -0.0665


def teeth(columns: int = 24) -> Mesh:
    """Two arcs of teeth and gums in template coordinates: a dental arch is close to a parabola. v
    runs from edge to gum."""
    x = np.linspace(-0.020, 0.020, columns)
    y = -0.0200 + 0.018 * (x / 0.020) ** 2
    one, uv = _grid(2, columns)
    arcs = []
    triangles = []
    for edge, gum in ((TEETH_PARTING + 0.0005, -0.0535), (TEETH_PARTING - 0.0005, -0.0765)):
        for z in (edge, gum):
            arcs.append(np.stack([x, y, np.full(columns, z)], 1))
        triangles.append(one + 2 * columns * len(triangles))
    vertices = np.concatenate(arcs).astype(np.float32)
    return Mesh(vertices, np.concatenate(triangles), np.concatenate([uv, uv]))


# --- hair -----------------------------------------------------------------------------------------

_COLUMNS = 73  # the first and the last one meet at the back of the head
_SCALP_ROWS = 14
_HANGING_ROWS = 9
_CENTER = np.array([0.0, 0.065, 0.010])
_PATH = np.linspace(0.0, np.radians(130), 53)  # polar angles at which the scalp is known
# azimuths: 0 is the front, positive to the subject's left
_AROUND = np.linspace(-np.pi, np.pi, _COLUMNS)


@dataclass(frozen=True, kw_only=True)
class HairStyle:
    """A hair volume: how thick it lies, and how far it hangs below the hair line. In meters."""

    thickness: float
    edge: float  # share of the thickness that is left at the hair line
    front: float = 0.0
    side: float = 0.0
    back: float = 0.0
    wave: float = 0.0
    rough: float = 0.05  # uneven thickness, as a share


STYLES = {
    "buzz": HairStyle(thickness=0.003, edge=0.5),
    "short": HairStyle(thickness=0.013, edge=0.35, front=0.003, side=0.001, back=0.002),
    "combed": HairStyle(thickness=0.020, edge=0.30, front=0.002, side=0.001, back=0.002),
    "fringe": HairStyle(thickness=0.014, edge=0.50, front=0.026, side=0.004, back=0.004),
    "afro": HairStyle(thickness=0.040, edge=0.75, side=0.004, back=0.010, rough=0.10),
    "curls": HairStyle(
        thickness=0.026, edge=0.60, front=0.016, side=0.060, back=0.070, wave=0.006, rough=0.12
    ),
    "bob": HairStyle(thickness=0.015, edge=0.40, front=0.004, side=0.100, back=0.110),
    "bob with fringe": HairStyle(thickness=0.015, edge=0.55, front=0.030, side=0.105, back=0.115),
    "long": HairStyle(thickness=0.014, edge=0.35, front=0.003, side=0.200, back=0.220, wave=0.003),
    "wavy": HairStyle(
        thickness=0.020, edge=0.40, front=0.006, side=0.170, back=0.190, wave=0.008, rough=0.08
    ),
    "tied": HairStyle(thickness=0.005, edge=0.35),
}
"""Hair volumes by name; a bald head has none of them."""


class Scalp:
    """Points of the skull where hair can grow, by azimuth and polar angle, as weights of a head's
    vertices."""

    def __init__(self, vertices: Points, usable: NDArray[np.bool_]):
        """``vertices``: the template's skin (V, 3); ``usable``: vertices (V,) of the outer skull,
        ears left out."""
        usable = np.flatnonzero(usable)
        angles = _azimuthal(vertices[usable] - _CENTER)
        mesh = Delaunay(angles)
        turn, polar = np.meshgrid(_AROUND, _PATH, indexing="ij")
        places = np.stack([polar * np.sin(turn), polar * np.cos(turn)], -1).reshape(-1, 2)

        inside = mesh.find_simplex(places)
        inside = np.where(inside < 0, mesh.find_simplex(places * 0.985), inside).clip(0)
        frame = mesh.transform[inside]
        first = np.einsum("nij,nj->ni", frame[:, :2], places - frame[:, 2])
        weights = np.concatenate([first, 1 - first.sum(1, keepdims=True)], 1).clip(0, 1)
        self._corners = usable[mesh.simplices[inside]]
        self._weights = (weights / weights.sum(1, keepdims=True)).astype(np.float32)
        self.template = self.points(vertices)

    def points(self, vertices: Points) -> Points:
        """(azimuths, polar angles, 3) of a head."""
        return np.einsum("nk,nkc->nc", self._weights, vertices[self._corners]).reshape(
            _COLUMNS, len(_PATH), 3
        )


def _azimuthal(offset: NDArray) -> NDArray:
    """Points around the skull's center to a flat map (N, 2) with the crown in its middle, true to
    angles from the crown."""
    polar = np.arctan2(np.hypot(offset[:, 0], offset[:, 1]), offset[:, 2])
    turn = np.arctan2(offset[:, 0], -offset[:, 1])
    return np.stack([polar * np.sin(turn), polar * np.cos(turn)], 1)


def hair_topology() -> Mesh:
    """The sheet of hair from the crown to its tips; u runs around the head, v along the strands."""
    rows = _SCALP_ROWS + _HANGING_ROWS
    triangles, uv = _grid(rows, _COLUMNS)
    return Mesh(np.broadcast_to(HIDDEN, (len(uv), 3)), triangles, uv)


def hair(
    style: HairStyle, skull: Points, covered: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Points, NDArray[np.float32]]:
    """Hair vertices (V, 3) on a skull (azimuths, polar angles, 3), and how far each is from the
    tips, in meters.

    ``covered`` (azimuths, polar angles): where the hair line lets hair grow.
    """
    last = np.maximum(covered.shape[1] - 1 - covered[:, ::-1].argmax(1), 1)
    share = np.linspace(0, 1, _SCALP_ROWS)
    at = share[:, None] * last  # rows x columns, in steps of the path
    low = np.floor(at).astype(int).clip(0, len(_PATH) - 2)
    between = (at - low)[..., None]

    column = np.arange(_COLUMNS)
    lying = skull[column, low] * (1 - between) + skull[column, low + 1] * between
    outward = lying - _CENTER
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    uneven = 1 + style.rough * (_around(rng, 5) + 0.6 * _around(rng, 14))
    profile = style.edge + (1 - style.edge) * (1 - share[:, None] ** 4)
    lying = lying + outward * (style.thickness * profile * uneven)[..., None]

    hanging = _hanging(style, lying[-1], rng)
    sheet = np.concatenate([lying, hanging])
    steps = np.linalg.norm(np.diff(sheet, axis=0), axis=-1)
    to_tip = np.concatenate([np.cumsum(steps[::-1], 0)[::-1], np.zeros((1, _COLUMNS))])
    return sheet.reshape(-1, 3).astype(np.float32), to_tip.ravel().astype(np.float32)


def _hanging(style: HairStyle, roots: NDArray, rng: np.random.Generator) -> NDArray:
    """(rows, columns, 3) of the hair below the hair line: it falls straight down, clear of brows,
    cheeks and ears."""
    turn = np.abs(_AROUND)
    front = 1 / (1 + np.exp((turn - np.radians(52)) / np.radians(3)))
    back = 1 / (1 + np.exp((np.radians(115) - turn) / np.radians(6)))
    length = style.front * front + style.side * (1 - front - back).clip(0) + style.back * back

    sweep = 1 + 0.5 * rng.normal() * np.sin(_AROUND) * front
    length = 0.002 + length * (sweep + 0.05 * _around(rng, 24)).clip(0.3, 1.6)
    down = np.linspace(0, 1, _HANGING_ROWS + 1)[1:, None]
    clear = (0.007 * front + 0.010 * (1 - front)) * np.minimum(1, length / 0.02)
    wave = style.wave * np.sin(2 * np.pi * (length * down / 0.05 + 0.25 * _around(rng, 9)))
    out = clear * np.sin(down * np.pi / 2) + wave * np.minimum(1, length * down / 0.03)
    away = np.stack([np.sin(_AROUND), -np.cos(_AROUND), np.zeros(_COLUMNS)], -1)
    return roots + out[..., None] * away + (length * down)[..., None] * np.array([0, 0, -1.0])


def _around(rng: np.random.Generator, waves: int) -> NDArray:
    """(azimuths,) smooth noise around the head of about unit size, closed at the back."""
    phases = rng.uniform(0, 2 * np.pi, waves)
    sizes = rng.normal(0, 1, waves) / np.sqrt(waves / 2)
    return sum(sizes[k] * np.sin((k + 1) * _AROUND + phases[k]) for k in range(waves))


# --- glasses --------------------------------------------------------------------------------------

_RIM = 28  # vertices along the rim of a lens
_SIDES = 4  # of a tube
_ARM = 3  # vertices along an arm, and along the bridge


@dataclass(frozen=True, kw_only=True)
class Glasses:
    """Frames: half sizes of a lens and thickness of the rim in meters; ``square`` 2 is round, 5
    nearly a rectangle."""

    width: float = 0.024
    height: float = 0.019
    square: float = 3.0
    rim: float = 0.0012
    dark: bool = False  # sunglasses


def glasses_topology() -> tuple[Mesh, Mesh]:
    """Frame (two rims, a bridge, two arms) and lenses (two discs)."""
    eyes = np.array([[0.03, 0, 0, 0.016], [-0.03, 0, 0, 0.016]])
    frame, lenses = _glasses(Glasses(), eyes, np.array([0.08, 0.06, 0.0]))

    tubes = []
    first = 0
    for count, closed in ((_RIM, True), (_RIM, True), (_ARM, False), (_ARM, False), (_ARM, False)):
        tubes.append(_tube_triangles(count, closed) + first)
        first += _SIDES * count

    i = np.arange(_RIM)
    fan = np.stack([np.full(_RIM, _RIM), i, (i + 1) % _RIM], 1)
    discs = np.concatenate([fan, fan + _RIM + 1])
    return _untextured(frame, np.concatenate(tubes)), _untextured(lenses, discs)


def _untextured(vertices: NDArray, triangles: NDArray) -> Mesh:
    return Mesh(vertices, triangles.astype(np.int32), np.zeros((len(vertices), 2), np.float32))


def glasses(style: Glasses | None, eyes: NDArray, ear: NDArray) -> tuple[Points, Points]:
    """Vertices of frame and lenses in front of the eyeballs (2, 4), hooked over the left ear's root
    (3,) and its mirror."""
    frame, lenses = _glasses(style or Glasses(), eyes, ear)
    if style is None:
        frame = np.broadcast_to(HIDDEN, frame.shape)
    if style is None or not style.dark:
        lenses = np.broadcast_to(HIDDEN, lenses.shape)
    return frame.astype(np.float32), lenses.astype(np.float32)


def _glasses(style: Glasses, eyes: NDArray, ear: NDArray) -> tuple[NDArray, NDArray]:
    turn = np.linspace(0, 2 * np.pi, _RIM, endpoint=False)
    power = 2 / style.square
    across = _power(np.cos(turn), power) * style.width
    up = _power(np.sin(turn), power) * style.height
    bend = 0.10 * np.abs(across)  # lenses turn a little with the face

    rims = []
    arms = []
    lenses = []
    inner = []
    for eye, side in zip(eyes, (1, -1), strict=True):
        middle = eye[:3] + np.array([side * 0.002, -eye[3] - 0.013, -0.003])
        path = middle + np.stack([across * side, bend, up], 1)
        rims.append(_tube(path, style.rim, closed=True))
        lenses.append(np.concatenate([path, middle[None]]))
        inner.append(path[np.abs(path[:, 0]).argmin()])

        hinge = path[np.abs(path[:, 0]).argmax()] + np.array([0, 0, 0.4 * style.height])
        hook = ear * np.array([side, 1, 1])
        bow = hinge * 0.4 + hook * 0.6 + np.array([side * 0.004, 0, 0])
        arms.append(_tube(np.stack([hinge, bow, hook]), style.rim, closed=False))

    crest = inner[0] * 0.5 + inner[1] * 0.5 + np.array([0, -0.002, 0.003])
    bridge = _tube(np.stack([inner[0], crest, inner[1]]), style.rim, closed=False)
    return np.concatenate([*rims, bridge, *arms]), np.concatenate(lenses)


def _power(x: NDArray, power: float) -> NDArray:
    return np.sign(x) * np.abs(x) ** power


def _tube(path: NDArray, radius: float, closed: bool) -> NDArray:
    """(N * sides, 3) around a path (N, 3)."""
    ahead = np.roll(path, -1, 0) - np.roll(path, 1, 0) if closed else np.gradient(path, axis=0)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True) + 1e-9
    across = np.cross(ahead, (0.0, 1.0, 0.001))
    across /= np.linalg.norm(across, axis=1, keepdims=True) + 1e-9
    over = np.cross(ahead, across)
    turns = np.linspace(0, 2 * np.pi, _SIDES, endpoint=False) + np.pi / 4
    ring = np.cos(turns)[:, None, None] * across + np.sin(turns)[:, None, None] * over
    return (path + radius * ring).transpose(1, 0, 2).reshape(-1, 3)


def _tube_triangles(count: int, closed: bool) -> NDArray[np.int32]:
    i, side = np.meshgrid(
        np.arange(count if closed else count - 1), np.arange(_SIDES), indexing="ij"
    )
    i = i.ravel()
    side = side.ravel()
    next_i = (i + 1) % count
    next_side = (side + 1) % _SIDES
    a = i * _SIDES + side
    b = i * _SIDES + next_side
    c = next_i * _SIDES + side
    d = next_i * _SIDES + next_side
    return np.concatenate([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


# --- garment --------------------------------------------------------------------------------------

_CLOTH_COLUMNS = 33
_CLOTH_ROWS = (
    (1.08, 1.08, 0.0),
    (1.16, 1.14, 0.006),
    (1.5, 1.2, 0.022),
    (2.4, 1.4, 0.045),
    (3.6, 1.7, 0.085),
    (4.3, 2.0, 0.22),
)
"""Rows from the collar down: width and depth as multiples of the neck's, and meters below it."""


def garment_topology() -> Mesh:
    """A collar that widens to shoulders: a sheet around the neck."""
    triangles, uv = _grid(len(_CLOTH_ROWS), _CLOTH_COLUMNS)
    return Mesh(np.broadcast_to(HIDDEN, (len(uv), 3)), triangles, uv)


def garment(neck: Points, opening: float) -> Points:
    """Vertices of a garment around a neck's skin (N, 3). ``opening``: meters by which the collar
    stands lower in front."""
    middle = (neck.max(0) + neck.min(0)) / 2
    half = (neck.max(0) - neck.min(0)) / 2
    turn = np.linspace(-np.pi, np.pi, _CLOTH_COLUMNS)
    frontal = np.exp(-((turn / 0.7) ** 2))
    top = -0.150 - opening * frontal + 0.02 * (1 - np.cos(turn)) / 2

    rows = []
    for wider, deeper, lower in _CLOTH_ROWS:
        x = middle[0] + half[0] * wider * np.sin(turn)
        y = middle[1] + half[1] * deeper * -np.cos(turn)
        rows.append(np.stack([x, y, top - lower], 1))
    return np.concatenate(rows).astype(np.float32)
