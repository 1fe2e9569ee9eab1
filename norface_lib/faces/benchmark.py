"""The open benchmark: subjects and frames by seed, written to disk with labels and, for each frame, its true normalized image.

A pool is a stream of subjects that no other pool shares: ``pretrain`` for the normalizer, ``lab`` for the benchmark (few
subjects, many frames, as BP4D), ``judge`` for networks that only measure. The same version, pool, seed and number give the same
face on the same platform.
"""

import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import erfinv
from tqdm.auto import tqdm

from norface_lib import labels
from norface_lib.errors import DataError
from norface_lib.faces.head import Subject, head_model
from norface_lib.faces.render import Camera, Light, Renderer, with_hair
from norface_lib.faces.skin import Look, draw_look, painter
from norface_lib.files import write_json, write_table

VERSION = 1
"""Changes whenever the same seed would give another face or another label."""

POOLS = ("pretrain", "lab", "judge")

DRAWN_AUS = (*labels.BP4D_AUS, 5, 25, 26, 43)
"""AUs that frames are drawn with: the 12 of BP4D, and four that real faces show beside them."""

_RATES = np.array([*labels.BP4D_RATES, 0.08, 0.30, 0.15, 0.05])

_TOGETHER = {  # correlations of the latent variables: our choice, after the co-occurrences that the field reports
    (1, 2): 0.7, (1, 4): 0.2, (4, 7): 0.3, (6, 7): 0.6, (6, 12): 0.75, (6, 10): 0.5, (7, 10): 0.4, (10, 12): 0.6, (7, 12): 0.4,
    (12, 14): 0.3, (15, 17): 0.5, (17, 24): 0.45, (23, 24): 0.4, (12, 15): -0.4, (12, 24): -0.3, (12, 25): 0.4, (25, 26): 0.6,
    (24, 25): -0.7, (23, 25): -0.5, (24, 26): -0.6, (23, 26): -0.4, (17, 25): -0.4, (1, 5): 0.4, (5, 26): 0.3, (5, 43): -0.8,
    (5, 7): -0.4,
}  # fmt: skip


@dataclass(frozen=True)
class BenchmarkSpec:
    """What to render. Everything that a face depends on is here or in ``VERSION``."""

    pool: str = "lab"
    subjects: int = 30
    frames: int = 40  # per subject
    size: int = 112  # pixels
    seed: int = 0
    target: str = "noor"  # the common identity of the normalized images, one of TARGETS

    def __post_init__(self):
        if self.pool not in POOLS:
            raise ValueError(f"pool must be one of {', '.join(POOLS)}, got {self.pool!r}")
        if self.target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}, got {self.target!r}")
        if min(self.subjects, self.frames, self.size) < 1:
            raise ValueError("subjects, frames and size must be at least 1")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True)
class Face:
    """A subject ready to be drawn: shape with hair, look and texture."""

    subject: Subject
    look: Look
    texture: NDArray[np.float32]


@dataclass(frozen=True)
class Frame:
    """What a frame shows: AU intensities 0..5 for each side (AU number -> value), and the nuisance."""

    left: dict[int, float]
    right: dict[int, float]
    gaze: tuple[float, float]
    camera: Camera
    light: Light


# --- subjects and frames by seed --------------------------------------------------------------------------------------


def draw_face(rng: np.random.Generator, spread: float = 0.35) -> Face:
    """A person: phenotype, local shape changes of about ``spread`` (they run from -1 to 1), look, hair."""
    model = head_model()
    ethnicity = rng.dirichlet([0.4] * 3)
    phenotype = {"gender": rng.random(), "age": rng.uniform(0.5, 0.95), "muscle": rng.random(), "weight": rng.uniform(0.2, 0.9)}
    phenotype |= dict(zip(("african", "asian", "caucasian"), ethnicity, strict=True))
    phenotype = {name: float(value) for name, value in phenotype.items()}
    changes = {n: float(np.clip(rng.normal() * spread, -1, 1)) for n in model.shape_names if not n.startswith("r-")}
    changes |= {"r-" + n[2:]: v + rng.normal() * 0.04 for n, v in changes.items() if n.startswith("l-")}  # nearly symmetric
    changes = {n: float(np.clip(v, -1, 1)) for n, v in changes.items() if n in model.shape_names}
    subject = model.subject(phenotype, changes)
    look = draw_look(rng, phenotype)
    return Face(with_hair(subject, look), look, painter().paint(look))


TARGETS = {"noor": 9}
"""Target identities by name, with the seed that draws them. Nobody's likeness: a rendered face, CC0."""


@lru_cache(maxsize=4)
def target_face(name: str = "noor") -> Face:
    """The face of a target identity. Milder in shape than a benchmark subject, so that expressions read easily."""
    return draw_face(np.random.default_rng([VERSION, 1000, TARGETS[name]]), spread=0.15)


@lru_cache(maxsize=1)
def _latent_factor() -> NDArray[np.float64]:
    """Cholesky factor of the AUs' latent correlations: the nearest valid matrix, as the pairs above were set one by one."""
    correlation = np.eye(len(DRAWN_AUS))
    for (a, b), value in _TOGETHER.items():
        i, j = DRAWN_AUS.index(a), DRAWN_AUS.index(b)
        correlation[i, j] = correlation[j, i] = value
    values, vectors = np.linalg.eigh(correlation)
    valid = vectors @ np.diag(values.clip(1e-3)) @ vectors.T
    scale = 1 / np.sqrt(np.diag(valid))
    return np.linalg.cholesky(valid * scale[:, None] * scale)


def draw_intensities(rng: np.random.Generator) -> tuple[dict[int, float], dict[int, float]]:
    """AU intensities 0..5 of the left and right side: a Gaussian copula with BP4D's base rates (PAPER.md 2.1).

    An AU that occurs has an intensity of at least 1 (A), more often low than high; its sides differ a little, and a smile or a
    dimple is now and then one-sided.
    """
    latent = _latent_factor() @ rng.normal(size=len(DRAWN_AUS))
    occurs = latent > np.sqrt(2) * erfinv(1 - 2 * _RATES)
    left, right = {}, {}
    for au, present in zip(DRAWN_AUS, occurs, strict=True):
        intensity = 1 + 4 * rng.beta(1.3, 1.6)
        sides = np.exp(rng.normal(0, 0.1, 2)) if labels.AUS[au].sided else np.ones(2)
        if au in (12, 14) and rng.random() < 0.08:
            sides[rng.integers(2)] *= 0.15
        if present:
            left[au], right[au] = (intensity * sides / sides.max()).tolist()
    return left, right


def draw_frame(rng: np.random.Generator) -> Frame:
    """An expression under random pose, gaze, light and framing."""
    left, right = draw_intensities(rng)
    camera = Camera(
        yaw=float(np.clip(rng.normal(0, 0.28), -0.7, 0.7)),
        pitch=float(np.clip(rng.normal(0, 0.14), -0.35, 0.35)),
        distance=float(rng.uniform(0.6, 1.6)),
        shift=tuple(rng.normal(0, 0.015, 2).tolist()),
        zoom=float(np.exp(rng.normal(0, 0.05))),
        tilt=float(rng.normal(0, 0.05)),
    )
    return Frame(left, right, tuple(rng.normal(0, (0.14, 0.07)).tolist()), camera, draw_light(rng))


def draw_light(rng: np.random.Generator) -> Light:
    """A lamp anywhere in front, warm or cold, over an ambient light that is stronger from one side."""
    azimuth, elevation = rng.uniform(-1.3, 1.3), rng.uniform(-0.1, 1.1)
    direction = (np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation))
    warmth = rng.normal(0, 0.08)
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    level = rng.uniform(0.22, 0.55)
    ambient = np.zeros((4, 3))
    ambient[0] = level * (2 - tint) * rng.normal(1, 0.04, 3)
    ambient[1:] = level * rng.normal((0, 0.2, 0.15), 0.22)[:, None] * rng.normal(1, 0.05, 3)
    return Light(tuple(map(float, direction)), tuple((tint * rng.uniform(0.35, 0.9)).tolist()), ambient.astype(np.float32))


def draw_background(rng: np.random.Generator, size: int) -> NDArray[np.float32]:
    """(S, S, 3) linear RGB: a wall with a soft gradient, or blurred colors as behind a portrait."""
    if rng.random() < 0.4:
        ends = rng.uniform(0.03, 0.8) * rng.normal(1, 0.12, (2, 2, 3)) * rng.normal(1, 0.1, 3)
    else:
        ends = rng.uniform(0.02, 0.9, (rng.integers(2, 7),) * 2)[..., None] * rng.uniform(0.55, 1.1, (1, 1, 3))
        ends = ends + rng.uniform(0, 0.25, ends.shape)
    return cv2.resize(ends.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def develop(linear: NDArray[np.float32], background: NDArray[np.float32], rng: np.random.Generator | None) -> NDArray[np.uint8]:
    """Linear premultiplied RGB and coverage (S, S, 4) over a background to an sRGB image (S, S, 3) of 8 bits.

    With ``rng``, as a real camera: exposure, white balance, now and then soft or gray, and sensor noise.
    """
    image = linear[..., :3] + (1 - linear[..., 3:]) * background
    if rng is not None:
        image = image * np.exp(rng.normal(-0.05, 0.18)) * rng.normal(1, 0.04, 3)
        if rng.random() < 0.3:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.0))
        if rng.random() < 0.12:
            image = np.repeat(image @ np.array([[0.2126], [0.7152], [0.0722]]), 3, axis=2)
    image = np.where(image > 0.7, 0.7 + 0.3 * np.tanh((image - 0.7) / 0.3), image).clip(0, 1)  # a soft shoulder, as film has
    image = np.where(image <= 0.0031308, image * 12.92, 1.055 * image ** (1 / 2.4) - 0.055)
    if rng is not None:
        image = image + rng.normal(0, rng.uniform(0.0, 0.02), image.shape)
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


class Studio:
    """Draws frames and their true normalized images with one renderer."""

    def __init__(self, size: int = 112, target: str = "noor", device: str = "cpu"):
        self.renderer = Renderer(size, device=device)
        self.target = target_face(target)
        model = head_model()
        self._anchor = model.five_points(self.target.subject.vertices)
        self._target_texture = self.renderer.textures(self.target.texture[None])
        wall = np.linspace(0.42, 0.34, size, dtype=np.float32)[:, None, None]
        self._wall = np.broadcast_to(wall, (size, size, 3)).astype(np.float32)

    def original(self, face: Face, frame: Frame, rng: np.random.Generator, texture=None) -> NDArray[np.uint8]:
        """The frame as a camera saw it: (S, S, 3) sRGB."""
        texture = self.renderer.textures(face.texture[None]) if texture is None else texture
        vertices = head_model().expression(face.subject, labels.facial_actions(frame.left, frame.right))
        drawn = self.renderer.draw([vertices], texture, [face.look], [frame.camera], [frame.light], [frame.gaze])[0]
        return develop(drawn, draw_background(rng, self.renderer.size), rng)

    def normalized(self, left: dict[int, float], right: dict[int, float] | None = None) -> NDArray[np.uint8]:
        """The true I_n of an expression: the target face, frontal, in its own light, framed as when neutral. (S, S, 3)."""
        vertices = head_model().expression(self.target.subject, labels.facial_actions(left, right))
        drawn = self.renderer.draw(
            [vertices], self._target_texture, [self.target.look], [Camera()], [Light()], anchors=[self._anchor]
        )[0]
        return develop(drawn, self._wall, None)

    def neutral(self) -> NDArray[np.uint8]:
        """The target face I_t, without expression."""
        return self.normalized({})


# --- writing ------------------------------------------------------------------------------------------------------------


def subject_name(pool: str, number: int) -> str:
    """``("lab", 3) -> "lab0003"``: names tell the pool, so two pools can never be mixed up."""
    return f"{pool}{number:04d}"


def label_row(subject: str, number: int, frame: Frame) -> dict[str, object]:
    """One row of the label table: paths, AU intensities (the stronger side, as coded by FACS; then each side), nuisance."""
    row: dict[str, object] = {
        "subject": subject,
        "frame": number,
        "image": f"images/{subject}/{number:04d}.jpg",
        "truth": f"truth/{subject}/{number:04d}.png",
    }
    for au in DRAWN_AUS:
        sides = frame.left.get(au, 0.0), frame.right.get(au, 0.0)
        row[labels.au_column(au)] = max(sides)
        if labels.AUS[au].sided:
            row[labels.au_column(au) + "L"], row[labels.au_column(au) + "R"] = sides
    row |= {"yaw": frame.camera.yaw, "pitch": frame.camera.pitch, "gaze_yaw": frame.gaze[0], "gaze_pitch": frame.gaze[1]}
    row |= {f"light_{axis}": value for axis, value in zip("xyz", frame.light.direction, strict=True)}
    return row


def face_of(spec: BenchmarkSpec, number: int) -> Face:
    """The person of subject ``number``."""
    return draw_face(np.random.default_rng([VERSION, POOLS.index(spec.pool), spec.seed, number]))


def frames_of(spec: BenchmarkSpec, number: int) -> Iterator[tuple[Frame, np.random.Generator]]:
    """The frames of subject ``number``, each with the generator that goes on to draw its background and camera."""
    for frame_number in range(spec.frames):
        rng = np.random.default_rng([VERSION, POOLS.index(spec.pool), spec.seed, number, frame_number])
        yield draw_frame(rng), rng


@lru_cache(maxsize=1)
def _studio(size: int, target: str) -> Studio:
    """One studio per worker process."""
    return Studio(size, target)


def render_subject(spec: BenchmarkSpec, number: int, root: str) -> str:
    """Writes one subject's images and label rows, all or nothing, and returns the subject's name."""
    name, root_path = subject_name(spec.pool, number), Path(root)
    part = root_path / "parts" / f"{name}.{os.getpid()}"
    shutil.rmtree(part, ignore_errors=True)
    face = face_of(spec, number)
    studio = _studio(spec.size, spec.target)
    texture = studio.renderer.textures(face.texture[None])
    rows, parent = [], os.getppid()
    for frame_number, (frame, rng) in enumerate(frames_of(spec, number)):
        if os.getppid() != parent:
            raise SystemExit("the process that asked for this subject is gone")
        row = label_row(name, frame_number, frame)
        _write_image(part / str(row["image"]), studio.original(face, frame, rng, texture))
        _write_image(part / str(row["truth"]), studio.normalized(frame.left, frame.right))
        rows.append(row)
    for folder in ("images", "truth"):
        shutil.rmtree(root_path / folder / name, ignore_errors=True)
        (root_path / folder).mkdir(exist_ok=True)
        os.replace(part / folder / name, root_path / folder / name)
    write_table(pd.DataFrame(rows), root_path / "parts" / f"{name}.csv")  # last: its presence says that the subject is done
    shutil.rmtree(part, ignore_errors=True)
    return name


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Originals are JPEG, as photographs are; true images are PNG: what an expression moves is little beside JPEG's noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if path.suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    done, data = cv2.imencode(path.suffix, image[..., ::-1], options)
    if not done:
        raise DataError(f"{path}: OpenCV could not encode the image")
    path.write_bytes(data.tobytes())


def write_benchmark(spec: BenchmarkSpec, root: Path, workers: int | None = None, progress: bool = True) -> Path:
    """Renders a benchmark into ``root`` and returns that: images/, truth/, labels.csv, target.png, benchmark.json.

    Subjects are rendered in parallel, each written as a whole; a call after an interruption goes on with those that are
    missing, and a finished folder of the same specification is used as it is. Raises :class:`DataError` if ``root`` holds
    another specification.
    """
    root = Path(root)
    wanted = {"version": VERSION, **asdict(spec)}
    _check_same(root, wanted)
    if (root / "labels.csv").exists():
        print(f"{root.name}: {spec.subjects} subjects x {spec.frames} frames are there already, used as they are")
        return root
    (root / "parts").mkdir(parents=True, exist_ok=True)
    write_json(wanted, root / "benchmark.json")
    missing = [n for n in range(spec.subjects) if not (root / "parts" / f"{subject_name(spec.pool, n)}.csv").exists()]
    _write_image(root / "target.png", Studio(spec.size, spec.target).neutral())
    _render_all(spec, missing, root, workers or os.cpu_count() or 1, progress)
    tables = [pd.read_csv(root / "parts" / f"{subject_name(spec.pool, n)}.csv") for n in range(spec.subjects)]
    write_table(pd.concat(tables, ignore_index=True), root / "labels.csv")
    shutil.rmtree(root / "parts")
    return root


def _check_same(root: Path, wanted: dict[str, object]) -> None:
    """Raises unless the folder is free, or holds just this benchmark, whole or begun."""
    path = root / "benchmark.json"
    if not path.exists():
        if (root / "labels.csv").exists():
            raise DataError(f"{root}: holds a label table but no benchmark.json; choose another folder")
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differing = {key: (found.get(key), value) for key, value in wanted.items() if found.get(key) != value}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: damaged; delete this folder and render again") from error
    if differing:
        raise DataError(f"{path}: holds another benchmark (found, wanted: {differing}); choose another folder or delete it")


def _render_all(spec: BenchmarkSpec, missing: list[int], root: Path, workers: int, progress: bool) -> None:
    if not missing:
        return
    bar = tqdm(total=spec.subjects, initial=spec.subjects - len(missing), unit="subject", disable=not progress, file=sys.stdout)
    bar.set_description(f"render {spec.pool}")
    context = multiprocessing.get_context("spawn")  # Warp must not be forked
    with bar, ProcessPoolExecutor(min(workers, len(missing)), context) as pool:
        jobs = [pool.submit(render_subject, spec, number, str(root)) for number in missing]
        try:
            for job in as_completed(jobs):
                job.result()
                bar.update()
        except BrokenProcessPool as error:
            raise DataError(
                f"{root}: a rendering process was killed (out of memory?); the same call goes on from here"
            ) from error
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
