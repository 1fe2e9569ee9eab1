"""Videos and pictures in which each face that was found is replaced by the target's, with the same
expression.

Two passes: the first follows and reads all faces, so that the second knows where a face is in
frames in which the detector missed it. A face that is never found stays visible: the report counts
the frames without one.
"""

from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm.auto import tqdm

from norface_lib.common.errors import DataError
from norface_lib.common.failures import writing
from norface_lib.common.files import write_atomically, write_json
from norface_lib.common.paths import no_file
from norface_lib.images.crop import align_face, pixels_within
from norface_lib.images.files import aligned, decode
from norface_lib.networks.drawing import DRAWINGS, NetworkDrawing
from norface_lib.photos.detection import Detector, open_detector
from norface_lib.photos.face_tracks import Code, Followed, Placed, follow
from norface_lib.photos.film import write_film
from norface_lib.photos.pasting import Patch, oval, paste
from norface_lib.photos.read_and_render import TOKEN_READER, ReadAndRender
from norface_lib.photos.readers import NORMALIZER
from norface_lib.photos.recognition import Recognition, as_sentence
from norface_lib.photos.smoothing import INTENSITIES, OneEuro
from norface_lib.photos.videos import VideoFrame, frame_count, is_video, read_sound, read_video

LAYOUTS = ("paste", "normalized")
"""The picture with drawn faces in place of the original ones, or the normalized face of the largest
alone."""

_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}

_ROOM = 1.7
"""How many times as wide as the crop the picture of a whole head is."""

_SIZES = (112, 224, 512, 768)
"""Pixels of the picture of a whole head, of which the crop takes three fifths."""

_ALONE = 512
"""Pixels of a normalized face alone."""


class _Painter(Protocol):
    """Reads faces and draws them."""

    target: str
    size: int  # pixels of the crops that it reads
    neutral: Code
    nobody: NDArray[np.uint8]  # in place of a normalized face alone

    def read(self, crop: NDArray[np.uint8]) -> Code:
        """What a crop (size, size, 3) shows."""
        ...

    def head(self, image: NDArray[np.uint8], face: Placed) -> tuple[NDArray[np.uint8], float]:
        """``drawn`` and ``room`` of a `Patch` for a face of a picture (H, W, 3)."""
        ...

    def alone(self, image: NDArray[np.uint8], face: Placed) -> NDArray[np.uint8]:
        """The normalized face (S, S, 3)."""
        ...


class _Rendering:
    """Draws by reading and rendering."""

    def __init__(self, token_reader: str, target: str | None, device: str):
        self.drawing = ReadAndRender(token_reader, target=target, size=_ALONE, device=device)
        self.target = self.drawing.target
        self.size = self.drawing.input_size
        self.neutral = np.zeros((len(self.drawing.aus), 2))
        self.nobody = np.full((_ALONE, _ALONE, 3), 128, np.uint8)

    def read(self, crop: NDArray[np.uint8]) -> Code:
        return self.drawing.read(crop[None])[0].astype(float)

    def head(self, image: NDArray[np.uint8], face: Placed) -> tuple[NDArray[np.uint8], float]:
        need = _ROOM * pixels_within(face.at)
        size = next((size for size in _SIZES if size >= need), _SIZES[-1])
        return self.drawing.cutout(face.code, size, _ROOM), _ROOM

    def alone(self, image: NDArray[np.uint8], face: Placed) -> NDArray[np.uint8]:
        return self.drawing.render(face.code)


class _Network:
    """Draws with a normalizer, which reads each frame's own face and has no code to smooth."""

    neutral = np.zeros(0)

    def __init__(self, weights: str, target: str | None, device: str):
        self.drawing = NetworkDrawing(weights, target, device)
        self.target = self.drawing.target
        self.size = self.drawing.input_size
        drawn = self.drawing.size
        self.nobody = np.full((drawn, drawn, 3), 128, np.uint8)
        self._cover = (255 * oval(drawn)).astype(np.uint8)[..., None]

    def read(self, crop: NDArray[np.uint8]) -> Code:
        return self.neutral

    def head(self, image: NDArray[np.uint8], face: Placed) -> tuple[NDArray[np.uint8], float]:
        return np.concatenate([self.alone(image, face), self._cover], axis=2), 1.0

    def alone(self, image: NDArray[np.uint8], face: Placed) -> NDArray[np.uint8]:
        return self.drawing.draw(align_face(image, face.points, size=self.size)[None])[0]


def anonymize(
    source: str | PathLike[str],
    out: str | PathLike[str],
    *,
    layout: str = "paste",
    draw: str = "render",
    target: str | None = None,
    token_reader: str = TOKEN_READER,
    weights: str = NORMALIZER,
    detector: str | Detector = "mediapipe",
    smoothing: OneEuro = INTENSITIES,
    keep_audio: bool = False,
    embedding: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Any]:
    """Writes a video (``out``: .mp4) or a picture (.png, .jpg) in which the target's face has taken
    the place of each face that was found, with its expression.

    ``layout``: one of `LAYOUTS`; ``draw``: ``render`` or ``network``; ``smoothing``: of the AU
    intensities over time, with ``render``; ``keep_audio``: a voice tells who speaks, so sound is
    left out by default; ``embedding``: a face recognizer, such as ``onnx:FILE``, that measures what
    it still tells. Metadata of the source are not copied. A head's turn to the side is not kept:
    the target looks ahead.

    Returns a report, which is also written beside ``out`` as JSON: ``frames``, ``faces`` that were
    drawn, those of them that were ``between_detections`` and ``too_small_to_read``, ``tracks``,
    ``frames_without_a_face``, whose faces, if there are any, are visible, and ``recognition``, as
    `Recognition.report` says. Raises :class:`DataError` for a source that cannot be read, in which
    no face was found, and for another suffix of ``out``; ``out`` is written whole or not at all.
    """
    source, out = Path(source), Path(out)
    _check(source, out, layout, draw)
    if isinstance(detector, str):
        detector = open_detector(detector)
    renders = draw == "render"
    painter: _Painter = (
        _Rendering(token_reader, target, device) if renders else _Network(weights, target, device)
    )
    recognition = Recognition(embedding, device) if embedding else None

    followed = _followed(source, detector, painter, smoothing, progress)
    if layout == "normalized":
        followed.faces = {number: faces[:1] for number, faces in followed.faces.items()}
    if recognition:
        recognition.expect(sum(face.found for face in followed.all_faces()))
    drawn = _drawn(source, followed, painter, layout, recognition, progress)
    with writing(out):
        _write(out, drawn, source if keep_audio else None)

    moves = is_video(source)
    report = _counts(followed) | {
        "layout": layout,
        "draw": draw,
        "target": painter.target,
        "smoothing": asdict(smoothing) if renders and moves else None,
        "sound": keep_audio and moves and next(read_sound(source), None) is not None,
        "recognition": recognition.report() if recognition else None,
    }
    write_json(report, out.with_suffix(".json"))
    return report


def _followed(
    source: Path, detector: Detector, painter: _Painter, smoothing: OneEuro, progress: bool
) -> Followed:
    """The faces of a source. Raises :class:`DataError` if there are none."""
    total = frame_count(source) if is_video(source) else 1
    frames = tqdm(_frames(source), desc="find", total=total, unit="frame", disable=not progress)
    followed = follow(frames, detector, painter.read, painter.neutral, smoothing, size=painter.size)
    if not followed.faces:
        raise DataError(
            f"{source}: no face was found in {len(followed.found)} frames, so nothing is written; "
            "try another detector, or a larger picture"
        )
    return followed


def _counts(followed: Followed) -> dict[str, int]:
    """Numbers of a report."""
    faces = followed.all_faces()
    return {
        "frames": len(followed.found),
        "unreadable_frames": followed.unreadable,
        "faces": len(faces),
        "tracks": followed.tracks,
        "between_detections": sum(not face.found for face in faces),
        "too_small_to_read": followed.small,
        "frames_without_a_face": len(followed.found) - len(followed.faces),
    }


def _check(source: Path, out: Path, layout: str, draw: str) -> None:
    """Raises :class:`DataError` for arguments that cannot be."""
    for value, known, words in ((layout, LAYOUTS, "layout"), (draw, DRAWINGS, "way of drawing")):
        if value not in known:
            raise DataError(f"no {words} {value!r}; there are {', '.join(known)}")
    if not source.is_file():
        raise DataError(f"{source}: {no_file(source)}; check the path")
    suffixes = (".mp4",) if is_video(source) else tuple(_PICTURES)
    if out.suffix.lower() not in suffixes:
        kind = "video" if is_video(source) else "picture"
        raise DataError(f"{out}: a {kind} is written as {' or '.join(suffixes)}; name it so")
    if out.resolve() == source.resolve():
        raise DataError(f"{out}: is the source itself; choose another name")


def _frames(source: Path) -> Iterator[VideoFrame]:
    """Frames of a video, or the one of a picture."""
    if is_video(source):
        yield from read_video(source)
    else:
        yield VideoFrame(0, 0.0, decode(source.read_bytes(), str(source)))


def _drawn(
    source: Path,
    followed: Followed,
    painter: _Painter,
    layout: str,
    recognition: Recognition | None,
    progress: bool,
) -> Iterator[tuple[float, NDArray[np.uint8]]]:
    """Time and drawn picture of each frame that can be read."""
    pasted = layout == "paste"
    # a file that grew meanwhile has frames that nobody searched for faces
    frames = islice(_frames(source), len(followed.times))
    bar = tqdm(frames, desc="draw", total=len(followed.times), unit="frame", disable=not progress)
    for number, frame in enumerate(bar):
        image = frame.image
        if image is None:
            continue  # the frame before stays
        faces = followed.faces.get(number, [])
        if pasted:
            result = _pasted(image, faces, painter)
        else:
            result = painter.alone(image, faces[0]) if faces else painter.nobody
        for face in faces:
            if recognition and face.found:
                before = align_face(image, face.points)
                after = align_face(result, face.points) if pasted else aligned(result, "it", 112)
                recognition.offer(before, after, frame=number, track=face.track)
        yield float(followed.times[number]), result


def _pasted(image: NDArray[np.uint8], faces: list[Placed], painter: _Painter) -> NDArray[np.uint8]:
    """The picture with drawn faces."""
    patches = []
    for face in faces:
        drawn, room = painter.head(image, face)
        patches.append(Patch(drawn=drawn, room=room, at=face.at, points=face.points, box=face.box))
    return paste(image, patches)


def _write(
    out: Path, frames: Iterator[tuple[float, NDArray[np.uint8]]], sound_of: Path | None
) -> None:
    if out.suffix.lower() == ".mp4":
        write_film(out, frames, read_sound(sound_of) if sound_of else ())
        return
    picture = Image.fromarray(next(frames)[1])
    kind = _PICTURES[out.suffix.lower()]
    write_atomically(out, lambda part: picture.save(part, kind, quality=95, subsampling=0))


def as_text(report: dict[str, Any], out: Path) -> str:
    """The report of `anonymize` in words."""
    lines = [
        f"{report['frames']} frames, {report['faces']} faces drawn in {report['tracks']} tracks "
        f"(see {out})",
        f"{report['between_detections']} of these faces stand where the detector found none, "
        "before, between or after those it found",
        f"{report['too_small_to_read']} faces were too small to read and are neutral",
        f"{report['frames_without_a_face']} frames have no face: if one is there, it is visible",
    ]
    if report["recognition"]:
        lines.append(as_sentence(report["recognition"]))
    return "\n".join(lines)
