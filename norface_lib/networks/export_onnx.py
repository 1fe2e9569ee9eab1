"""Normalizers, classifiers and token readers as ONNX files, compared with PyTorch before they are
kept.

A normalizer's file holds its target: the target's features are constants, so that they cost nothing
and no other picture can take their place. Classifiers of one backbone share a file, which embeds
each face once, and behind their normalizer even the originals cost nothing more. Calling
`export_onnx` needs onnx and onnxruntime, importing it does not.

By PyTorch's exporter of traced modules: the newer one needs the package onnxscript, and gains
nothing here. Files take any number of faces.
"""

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from norface_lib.common.errors import CheckpointError, needs
from norface_lib.common.files import write_atomically
from norface_lib.common.locks import only_writer
from norface_lib.images.arrays import to_tensor
from norface_lib.images.files import read_face
from norface_lib.labels import columns
from norface_lib.networks.cards import FOLDER, fingerprint, read_card, target_names
from norface_lib.networks.classifier import Classifier
from norface_lib.networks.pipeline import Normalization, Pipeline
from norface_lib.networks.token_reader import TokenReader
from norface_lib.networks.weights import (
    find_weights,
    load_classifier,
    load_normalizer,
    load_token_reader,
)

OPSET = 20
"""Version of the ONNX operations: the first that has GELU, and the last of this exporter."""

OLDEST_OPSET = 17

TOLERANCE = 1e-4
"""Largest difference of an output from PyTorch's."""

# --- files ----------------------------------------------------------------------------------------


def export_onnx(
    names: Sequence[str | PathLike[str]],
    out: Path,
    *,
    target: str | None = None,
    opset: int = OPSET,
) -> dict[str, Any]:
    """Writes a normalizer, classifiers, token readers, or these behind a normalizer, as one ONNX
    file; returns its metadata.

    Inputs are faces (N, 3, S, S), RGB in [0, 1]: ``original``, and ``normalized`` if classifiers
    without a normalizer read them. Outputs: ``normalized`` (N, 3, S, S) in [0, 1] of the target
    (default: the first), and of each classifier, by the name of its weights, (N, L) probabilities,
    or intensities 0..5; of a token reader
    `norface_lib.networks.token_reader.Reading.predictions`. The metadata, JSON in the entry
    ``norface``, names labels, tasks, crop, color order, range and fingerprints.

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
    readers: dict[str, tuple[Classifier | TokenReader, str]] = {}
    outputs: dict[str, Any] = {}
    for path, card in cards.items():
        if card["kind"] == "normalizer" and normalization is None:
            model, face, _ = load_normalizer(path, target)
            normalization = Normalization(model, face)
            outputs["normalized"] = {"target": target or target_names(card)[0]}
        elif card["kind"] == "classifier" and "task" in card:
            model, _ = load_classifier(path)
            readers[path.stem] = model, card["task"]
            outputs[path.stem] = {"task": card["task"], "labels": list(model.config.labels)}
        elif card["kind"] == "reader":
            model, _ = load_token_reader(path)
            readers[path.stem] = model, "reader"
            outputs[path.stem] = {"task": "reader", "labels": _labels_of(model)}
        else:
            raise CheckpointError(
                f"{path}: cannot be exported with the others; a file holds one normalizer, "
                "token readers, classifiers whose cards say their task, or all of these"
            )
    if target is not None and normalization is None:
        raise CheckpointError(f"{paths[0]}: a reader has no target; leave out --target")

    network = Pipeline(normalization, readers)
    shared = next(iter(cards.values()))
    metadata = {name: shared[name] for name in ("crop", "color", "range") if name in shared}
    metadata["image_size"] = network.image_size
    metadata["fingerprints"] = {path.stem: fingerprint(path, card) for path, card in cards.items()}
    metadata["inputs"] = list(network.inputs)
    metadata["outputs"] = outputs
    return network, metadata


def _labels_of(model: TokenReader) -> list[str]:
    """Names of the columns of `norface_lib.networks.token_reader.Reading.predictions`."""
    aus = columns(model.config.aus)
    sides = [f"{name}_{side}" for name in aus for side in ("left", "right")]
    return [*aus, *sides, *model.config.emotions]


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


def open_session(path: Path) -> Any:
    """An ``onnxruntime.InferenceSession`` on the CPU, with as many threads as PyTorch has.

    Raises :class:`CheckpointError` for a file that onnxruntime cannot read.
    """
    with needs("photos"):
        import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
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
