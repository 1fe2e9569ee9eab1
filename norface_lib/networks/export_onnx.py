"""Normalizers and classifiers as ONNX files, compared with PyTorch before they are kept.

A normalizer's file holds its target: the target's features are constants, so that they cost nothing
and no other picture can take their place. Classifiers of one backbone share a file, which embeds
each face once, and behind their normalizer even the originals cost nothing more. Calling
`export_onnx` needs onnx and onnxruntime, importing it does not.

By PyTorch's exporter of traced modules: the newer one needs the package onnxscript, and gains
nothing here. Files take any number of faces.
"""

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from norface_lib.common.errors import CheckpointError, needs
from norface_lib.common.files import write_atomically
from norface_lib.common.locks import only_writer
from norface_lib.images.arrays import to_tensor
from norface_lib.images.files import read_face
from norface_lib.labels import INTENSITY_MAX
from norface_lib.networks.cards import FOLDER, fingerprint, read_card, target_names
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.normalizer import Normalizer
from norface_lib.networks.weights import find_weights, load_classifier, load_normalizer

OPSET = 20
"""Version of the ONNX operations: the first that has GELU, and the last of this exporter."""

OLDEST_OPSET = 17

TOLERANCE = 1e-4
"""Largest difference of an output from PyTorch's."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "au_detection": torch.sigmoid,
    "au_intensity": lambda logits: logits.clamp(0, INTENSITY_MAX),
    "emotion": lambda logits: logits.softmax(dim=-1),
}
"""From logits (N, L) to what a task predicts: probabilities, or intensities 0..5."""


# --- the network of a file ------------------------------------------------------------------------


class Normalization(nn.Module):
    """A normalizer and one target (1, 3, S, S): originals (N, 3, S, S) in [0, 1] to I_n of the same
    shape, and to the embeddings (N, D) of the originals, which cost nothing more."""

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
    """The network of a file: a normalizer, classifiers, or classifiers behind their normalizer.

    Takes faces (N, 3, S, S) in [0, 1] by ``inputs`` and returns a tensor for each of ``outputs``:
    ``normalized`` (N, 3, S, S), and predictions (N, L) by the names of classifiers. Classifiers of
    one backbone share its embeddings; behind a normalizer they read its images as 8 bits would hold
    them.
    """

    def __init__(
        self, normalization: Normalization | None, classifiers: dict[str, tuple[Classifier, str]]
    ):
        super().__init__()
        self.normalization = normalization
        models = [model for model, _ in classifiers.values()]
        self.tasks = [task for _, task in classifiers.values()]
        self.heads = nn.ModuleList(model.head for model in models)
        self.backbones = nn.ModuleList()
        self.backbone_of = [self._backbone_number(model) for model in models]
        before = [] if normalization is None else [normalization.model]
        self.image_size = [*before, *models][0].encoder.image_size
        self.inputs = ("original",) if before else self._faces_read()
        self.outputs = (*(["normalized"] if before else []), *classifiers)

    def _backbone_number(self, model: Classifier) -> int:
        """Number of a classifier's backbone; -1 for the normalizer's."""
        if self.normalization is not None and _same_backbone(model, self.normalization.model):
            return -1
        for number, known in enumerate(self.backbones):
            if _same_backbone(model, known):
                return number
        self.backbones.append(model)
        return len(self.backbones) - 1

    def _faces_read(self) -> tuple[str, ...]:
        read = {head.config.inputs for head in self.heads}
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
            faces["normalized"] = torch.floor(read * 255 + 0.5) / 255
            outputs.append(normalized)

        for head, task, number in zip(self.heads, self.tasks, self.backbone_of, strict=True):
            inputs = {}
            for name, images_of_name in faces.items():
                if head.config.inputs not in (name, "both"):
                    continue
                if (number, name) not in embeddings:
                    embeddings[number, name] = self._embed(number, images_of_name)
                inputs[name] = embeddings[number, name]
            outputs.append(ACTIVATIONS[task](head(**inputs).logits))
        return tuple(outputs)

    def _embed(self, number: int, images: Tensor) -> Tensor:
        if number >= 0:
            return self.backbones[number].embed(images)
        model = self.normalization.model
        return model.expression(model.encoder(images))


def _same_backbone(model: Classifier | Normalizer, other: Classifier | Normalizer) -> bool:
    """Tells whether two networks embed faces alike, bit for bit."""
    for ours, theirs in ((model.encoder, other.encoder), (model.expression, other.expression)):
        weights = theirs.state_dict()
        if ours.state_dict().keys() != weights.keys():
            return False
        if not all(torch.equal(value, weights[name]) for name, value in ours.state_dict().items()):
            return False
    return model.encoder.image_size == other.encoder.image_size


# --- files ----------------------------------------------------------------------------------------


def export_onnx(
    names: Sequence[str | PathLike[str]],
    out: Path,
    *,
    target: str | None = None,
    opset: int = OPSET,
) -> dict[str, Any]:
    """Writes a normalizer, classifiers, or classifiers behind their normalizer, as one ONNX file;
    returns its metadata.

    Inputs are faces (N, 3, S, S), RGB in [0, 1]: ``original``, and ``normalized`` if classifiers
    without a normalizer read them. Outputs: ``normalized`` (N, 3, S, S) in [0, 1] of the target
    (default: the first), and of each classifier, by the name of its weights, (N, L) probabilities,
    or intensities 0..5. The metadata, JSON in the entry ``norface``, names labels, tasks, crop,
    color order, range and fingerprints.

    The file is run on faces and compared with PyTorch's outputs before it gets its name. Raises
    :class:`CheckpointError` if a value differs by more than ``TOLERANCE``, for two normalizers, and
    as `norface_lib.networks.weights.load_normalizer` does.
    """
    if not OLDEST_OPSET <= opset <= OPSET:
        raise CheckpointError(f"opset must be within {OLDEST_OPSET}..{OPSET}, got {opset}")
    paths = [find_weights(name) for name in names]
    network, metadata = _network_of(paths, target)
    network.eval().requires_grad_(False)
    faces = _faces(network.image_size)

    def write(part: Path) -> None:
        _trace(network, faces, part, opset, Path(out))
        _add_metadata(part, metadata)
        _compare(network, faces, part, Path(out))

    with only_writer(out):
        write_atomically(out, write)
    return metadata


def _network_of(paths: Sequence[Path], target: str | None) -> tuple[Pipeline, dict[str, Any]]:
    """The network of some weights, and the metadata of its file."""
    if len({path.stem for path in paths}) < len(paths):
        raise CheckpointError("weights of one file must have different names; rename one")

    cards = {path: read_card(path) for path in paths}
    normalization = None
    classifiers = {}
    outputs: dict[str, Any] = {}
    for path, card in cards.items():
        if card["kind"] == "normalizer" and normalization is None:
            model, face, _ = load_normalizer(path, target)
            normalization = Normalization(model, face)
            outputs["normalized"] = {"target": target or target_names(card)[0]}
        elif card["kind"] == "classifier" and "task" in card:
            model, _ = load_classifier(path)
            classifiers[path.stem] = model, card["task"]
            outputs[path.stem] = {"task": card["task"], "labels": list(model.config.labels)}
        else:
            raise CheckpointError(
                f"{path}: cannot be exported with the others; a file holds one normalizer, "
                "classifiers whose cards say their task, or both"
            )
    if target is not None and normalization is None:
        raise CheckpointError(f"{paths[0]}: a classifier has no target; leave out --target")

    network = Pipeline(normalization, classifiers)
    shared = next(iter(cards.values()))
    metadata = {name: shared[name] for name in ("crop", "color", "range") if name in shared}
    metadata["image_size"] = network.image_size
    metadata["fingerprints"] = {path.stem: fingerprint(path, card) for path, card in cards.items()}
    metadata["inputs"] = list(network.inputs)
    metadata["outputs"] = outputs
    return network, metadata


def _faces(size: int) -> Tensor:
    """Real inputs for the comparison: the faces of the shipped targets (8, 3, S, S), also mirrored,
    darker, and moved."""
    pictures = [read_face(FOLDER / f"{name}.png", size) for name in ("tiny", "tiny-photo")]
    faces = to_tensor(np.stack(pictures))
    changed = (faces, faces.flip(3), 0.6 * faces, faces.roll((size // 16, -size // 16), (2, 3)))
    return torch.cat(changed)


def _trace(network: Pipeline, faces: Tensor, path: Path, opset: int, out: Path) -> None:
    batch = (faces[:3],) * len(network.inputs)
    dynamic = {name: {0: "N"} for name in (*network.inputs, *network.outputs)}
    try:
        with needs("photos"), _as_plain_operations():
            torch.onnx.export(
                network,
                batch,
                str(path),
                dynamo=False,
                opset_version=opset,
                input_names=list(network.inputs),
                output_names=list(network.outputs),
                dynamic_axes=dynamic,
            )
    except RuntimeError as error:
        raise CheckpointError(
            f"{out}: not written, as these networks hold what ONNX does not know: {error}"
        ) from error


@contextmanager
def _as_plain_operations() -> Iterator[None]:
    """Traces attention as products and a softmax, not as PyTorch's one fused operation; without the
    warnings of tracing, whose result is compared anyway."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _add_metadata(path: Path, metadata: dict[str, Any]) -> None:
    with needs("photos"):
        import onnx

    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"norface": json.dumps(metadata)})
    onnx.save(model, path)


def _compare(network: Pipeline, faces: Tensor, path: Path, out: Path) -> None:
    """Raises :class:`CheckpointError` if a file gives other outputs than its network, for one face,
    some, and many."""
    session = open_session(path)
    normalized = faces.flip(0)
    for count in (1, 3, len(faces)):
        pairs = {"original": faces[:count], "normalized": normalized[:count]}
        inputs = {name: pairs[name] for name in network.inputs}
        arrays = {name: value.numpy() for name, value in inputs.items()}
        results = run_session(session, arrays, out)
        read = None if network.normalization is None else torch.from_numpy(results[0])
        with torch.inference_mode():
            expected = network.run(list(inputs.values()), read)
        for name, result, values in zip(network.outputs, results, expected, strict=True):
            off = float(np.abs(result - values.numpy()).max())
            if not off <= TOLERANCE:
                raise CheckpointError(
                    f"{out}: not written, as its output {name} differs from PyTorch's by {off:.1e} "
                    f"(for {count} faces); try another --opset"
                )


def open_session(path: Path, threads: int | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU; threads: default PyTorch's number.

    Raises :class:`CheckpointError` for a file that onnxruntime cannot read.
    """
    with needs("photos"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3  # errors come as exceptions
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no common base
        raise CheckpointError(f"{path}: onnxruntime cannot read it: {error}") from error


def run_session(session: Any, inputs: dict[str, NDArray], path: Path) -> list[NDArray]:
    """All outputs of an onnxruntime session. Raises :class:`CheckpointError`, naming the file, if
    it cannot be run."""
    try:
        return session.run(None, inputs)
    except Exception as error:  # onnxruntime's own classes have no common base
        raise CheckpointError(f"{path}: onnxruntime cannot run it: {error}") from error


def metadata_of(session: Any) -> dict[str, Any]:
    """The metadata that `export_onnx` wrote; empty for a file of others."""
    return json.loads(session.get_modelmeta().custom_metadata_map.get("norface", "{}"))
