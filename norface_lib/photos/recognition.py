"""What a face recognizer still tells of a replaced face: measured on the pictures of one source,
with one network, and no promise about another."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from norface_lib.common.devices import device_of
from norface_lib.faces.benchmark import BenchmarkSpec, face_of
from norface_lib.faces.sampling import Frame
from norface_lib.faces.studio import Studio
from norface_lib.images.arrays import Faces, to_tensor
from norface_lib.networks.frozen import frozen_network

MOST_FACES = 200
"""Faces of a source that are compared, evenly spread over it."""

STRANGERS = 10
"""Rendered people, none of them a target, whom the originals are compared with."""

_SIZE = 112


class Recognition:
    """Collects faces of a source, each before and after it was replaced, for a comparison by
    ``network``, a name of `norface_lib.networks.frozen.frozen_network`.

    Errors as of that function, and `norface_lib.common.errors.MissingExtraError` without the extra
    ``render``, which makes strangers.
    """

    def __init__(self, network: str, device: str = "auto"):
        self.network = network
        self._device = device_of(device)
        self._model = frozen_network(network).to(self._device)
        self._strangers = self._embedded(rendered_strangers())
        self._step = 1
        self._offered = 0
        self._before: list[NDArray[np.uint8]] = []
        self._after: list[NDArray[np.uint8]] = []
        self._of: list[tuple[int, int]] = []  # frame and track

    def expect(self, total: int) -> None:
        """Spreads the faces that are compared over all that will be offered."""
        self._step = max(1, -(-total // MOST_FACES))

    def offer(
        self, before: NDArray[np.uint8], after: NDArray[np.uint8], *, frame: int, track: int
    ) -> None:
        """A face of a frame as aligned crops (112, 112, 3), before and after it was replaced."""
        if self._offered % self._step == 0:
            self._before.append(before)
            self._after.append(after)
            self._of.append((frame, track))
        self._offered += 1

    def report(self) -> dict[str, Any]:
        """Mean cosines, and how many pairs each is of; None where there is no pair.

        ``replaced``: an original face and what replaced it in the same frame. ``strangers``: an
        original and a rendered person of another identity, the same step from photograph to
        rendering. ``same_person``: originals of one track in other frames. ``different_people``:
        originals of one frame.
        """
        before = self._embedded(np.stack(self._before))
        after = self._embedded(np.stack(self._after))
        pairs = list(combinations(range(len(self._of)), 2))
        frames, tracks = np.array(self._of).T
        same = [before[i] @ before[j] for i, j in pairs if tracks[i] == tracks[j]]
        others = [before[i] @ before[j] for i, j in pairs if frames[i] == frames[j]]
        cosines = {
            "replaced": (before * after).sum(1),
            "strangers": (before @ self._strangers.T).ravel(),
            "same_person": same,
            "different_people": others,
        }
        means = {
            name: {
                "cosine": round(float(np.mean(each)), 4) if len(each) else None,
                "pairs": len(each),
            }
            for name, each in cosines.items()
        }
        kind, _, file = self.network.partition(":")
        return {"network": f"{kind}:{Path(file).name}" if file else kind, **means}

    @torch.inference_mode()
    def _embedded(self, faces: Faces) -> NDArray[np.float64]:
        """Embeddings (N, D) of length 1."""
        batches = np.array_split(faces, -(-len(faces) // 32))
        rows = [self._model.embed(to_tensor(batch).to(self._device)).cpu() for batch in batches]
        values = torch.cat(rows).double().numpy()
        return values / np.linalg.norm(values, axis=1, keepdims=True)


def rendered_strangers() -> Faces:
    """Neutral faces (N, 112, 112, 3) of rendered people."""
    studio = Studio(_SIZE)
    spec = BenchmarkSpec(pool="lab", subjects=STRANGERS)
    people = [face_of(spec, number) for number in range(STRANGERS)]
    return np.stack([studio.plain(person, Frame({}, {})) for person in people])


def as_sentence(report: dict[str, Any]) -> str:
    """A report of `Recognition` in words."""

    def mean(name: str) -> str:
        value = report[name]["cosine"]
        return "-" if value is None else f"{value:.2f}"

    return (
        f"{report['network']} gives an original face and its replacement a mean cosine of "
        f"{mean('replaced')}, an original and rendered strangers {mean('strangers')}, the same "
        f"person in other frames {mean('same_person')}, and different people of one frame "
        f"{mean('different_people')}: measured on this source with this one network, and no "
        "promise about another, or about what body, clothes, voice and place tell"
    )
