"""A normalizer and the networks that read its faces as one module, for files of other programs."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from norface_lib.labels import INTENSITY_MAX
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.token_reader import TokenReader
from norface_lib.networks.weights import same_weights

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "au_detection": torch.sigmoid,
    "au_intensity": lambda logits: logits.clamp(0, INTENSITY_MAX),
    "emotion": lambda logits: logits.softmax(dim=-1),
}
"""From logits (N, L) to what a task predicts: probabilities, or intensities 0..5."""


class Normalization(nn.Module):
    """A normalizer and one target (1, 3, T, T): originals (N, 3, S, S) in [0, 1] to I_n
    (N, 3, T, T), and to the embeddings (N, D) of the originals, which cost nothing more."""

    def __init__(self, model: Normalizer, target: Tensor):
        super().__init__()
        self.model = model
        with torch.no_grad():
            self.target = model.target(target)

    def forward(self, original: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.model.encoder(original)
        embeddings = self.model.expression(tokens)
        return self.model.synthesize(tokens, self.target, embeddings), embeddings


class Pipeline(nn.Module):
    """The network of a file: a normalizer, readers (classifiers and token readers), or readers
    behind a normalizer.

    Takes faces (N, 3, S, S) in [0, 1] by ``inputs`` and returns a tensor for each of ``outputs``:
    ``normalized`` (N, 3, T, T), and predictions (N, L) by the names of readers. Classifiers of one
    backbone share its embeddings; behind a normalizer they read its images as 8 bits would hold
    them. Token readers read originals.
    """

    def __init__(
        self,
        normalization: Normalization | None,
        readers: dict[str, tuple[Classifier | TokenReader, str]],
    ):
        super().__init__()
        self.normalization = normalization
        models = [model for model, _ in readers.values()]
        self.tasks = [task for _, task in readers.values()]
        # a token reader is used whole
        self.heads = nn.ModuleList(
            model if isinstance(model, TokenReader) else model.head for model in models
        )
        self.backbones = nn.ModuleList()
        self.backbone_of = [self._backbone_number(model) for model in models]
        before = [] if normalization is None else [normalization.model]
        self.image_size = [*before, *models][0].encoder.image_size
        self.inputs = ("original",) if before else self._faces_read()
        self.outputs = (*(["normalized"] if before else []), *readers)

    def _backbone_number(self, model: Classifier | TokenReader) -> int:
        """Number of a classifier's backbone; -1 for the normalizer's, and for none."""
        if isinstance(model, TokenReader):
            return -1
        if self.normalization is not None and _same_backbone(model, self.normalization.model):
            return -1
        for number, known in enumerate(self.backbones):
            if _same_backbone(model, known):
                return number
        self.backbones.append(model)
        return len(self.backbones) - 1

    def _faces_read(self) -> tuple[str, ...]:
        read = {
            "original" if isinstance(head, TokenReader) else head.config.inputs
            for head in self.heads
        }
        return tuple(name for name in ("original", "normalized") if read & {name, "both"})

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        return self.run(images)

    def run(self, images: Sequence[Tensor], read: Tensor | None = None) -> tuple[Tensor, ...]:
        """The outputs. ``read``: normalized faces (N, 3, S, S) for the classifiers in place of the
        normalizer's: a comparison needs them, as 8 bits round up or down by a last digit."""
        faces = dict(zip(self.inputs, images, strict=True))
        embeddings: dict[tuple[int, str], Tensor] = {}
        outputs = []
        if self.normalization is not None:
            normalized, embeddings[-1, "original"] = self.normalization(faces["original"])
            read = normalized if read is None else read
            eight_bits = torch.floor(read * 255 + 0.5) / 255
            faces["normalized"] = self.normalization.model.shrunk(eight_bits)
            outputs.append(normalized)

        for head, task, number in zip(self.heads, self.tasks, self.backbone_of, strict=True):
            if isinstance(head, TokenReader):
                outputs.append(head(faces["original"]).predictions)
                continue
            inputs = {}
            for name, images_of_name in faces.items():
                if head.config.inputs not in (name, "both"):
                    continue
                if (number, name) not in embeddings:
                    embeddings[number, name] = self._embed(number, name, images_of_name)
                inputs[name] = embeddings[number, name]
            outputs.append(ACTIVATIONS[task](head(**inputs).logits))
        return tuple(outputs)

    def _embed(self, number: int, face: str, images: Tensor) -> Tensor:
        if number >= 0:
            return self.backbones[number].embed(images, face)
        model = self.normalization.model
        return model.expression(model.encoder(images))


def _same_backbone(model: Classifier | Normalizer, other: Classifier | Normalizer) -> bool:
    """Tells whether two networks embed faces alike, bit for bit."""
    if any(getattr(network, "own", None) is not None for network in (model, other)):
        return False
    if model.encoder.image_size != other.encoder.image_size:
        return False
    parts = ((model.encoder, other.encoder), (model.expression, other.expression))
    return all(same_weights(ours.state_dict(), theirs.state_dict()) for ours, theirs in parts)
