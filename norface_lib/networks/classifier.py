"""The classification network: original and normalized face to a logit for each label, with a
mixture of experts at both ends.

Established are the two places of the mixtures, m = 4 experts with k = 2 kept, and two auxiliary
losses of weight 0.001 (PAPER.md 1.1, 1.2). The rest is our choice after PAPER.md 1.5: noisy top-k
gates (Shazeer et al. 2017), one gate and one head for each label at the output (MMoE, Ma et al.
2018), one embedding per face as the experts' input. No sample is ever dropped.

Shapes: N images, L labels, m experts, D the width of the encoder.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from norface_lib.common.sharing import whole_batch
from norface_lib.networks.encoder import (
    MINI_SIZE,
    MINI_WIDTHS,
    TINY_ENCODER,
    EncoderConfig,
    FaceEncoder,
    ImageEncoder,
    JsonConfig,
    MiniEncoder,
    TimmEncoder,
    check_timm,
    timm_image_size,
    timm_width,
)
from norface_lib.networks.fusion import FUSIONS, without_a_face
from norface_lib.networks.mixtures import (
    Dense,
    Gating,
    MixtureOfExperts,
    OutputMixture,
    check_top_k,
    importance,
    load,
    mlp_of_size,
    parameter_count,
    size_of,
)
from norface_lib.networks.normalizer import ExpressionEmbedding, Normalizer
from norface_lib.networks.routing import ROUTINGS

INPUTS = ("original", "normalized", "both")
"""Faces that a classifier can take."""

OWN_BACKBONE = "norface"
"""The normalizer's encoder and expression embedding. Any other backbone is ``timm:NAME`` or
``MINI_BACKBONE``."""

MINI_BACKBONE = "mini"
"""`norface_lib.networks.encoder.MiniEncoder`."""


class ClassifierOutput(NamedTuple):
    """Logits (N, L) in the order of ``ClassifierConfig.labels``, and the gating of each mixture
    that is on."""

    logits: Tensor
    input_gating: Gating | None
    output_gating: Gating | None


@dataclass(frozen=True)
class ClassifierConfig(JsonConfig):
    """Labels, inputs and parts of a classifier.

    Raises ``ValueError`` for labels that are no tuple of distinct names, and for settings out of
    range.
    """

    labels: tuple[str, ...]  # names in the order of the logits
    _: KW_ONLY
    inputs: str = "both"  # one of INPUTS
    encoder: EncoderConfig = TINY_ENCODER  # of the own backbone; others ignore it
    hidden: int = 512  # width inside an expert
    experts: int = 4
    top_k: int = 2
    input_mixture: bool = True  # False: a dense MLP of as many parameters
    output_mixture: bool = True  # the same
    dropout: float = 0.1  # of the standardized embeddings, before they are fused
    fusion: str = "concat"  # one of FUSIONS, where inputs is both; a single face has no other
    backbone: str = OWN_BACKBONE  # or mini, or timm:NAME, any network of timm
    # pixels of the input of a backbone that is not the own one; None: what is usual for it
    image_size: int | None = None
    # stochastic depth of the backbone in training; MAE fine-tunes with 0.1
    drop_path_rate: float = 0.0
    # both faces are embedded by one backbone; False: each by its own
    shared: bool = True
    # share of training samples that lack one of both faces, see `without_a_face`
    face_dropout: float = 0.0
    routing: str = "noisy"  # one of ROUTINGS, for both mixtures
    shared_expert: bool = False  # each mixture has one more expert, for all samples

    def __post_init__(self):
        names = self.labels if isinstance(self.labels, tuple) else ()
        distinct = {name for name in names if isinstance(name, str)}
        if not names or len(distinct) != len(names):
            raise ValueError(f"labels must be a tuple of distinct names, got {self.labels!r}")
        if self.inputs not in INPUTS:
            raise ValueError(f"inputs must be one of {', '.join(INPUTS)}, got {self.inputs!r}")
        if self.hidden < 1:
            raise ValueError(f"hidden must be 1 or more, got {self.hidden}")
        for name in ("dropout", "face_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be within [0, 1), got {getattr(self, name)}")
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {self.fusion!r}")
        if self.routing not in ROUTINGS:
            raise ValueError(f"routing must be one of {', '.join(ROUTINGS)}, got {self.routing!r}")
        check_top_k(self.experts, self.top_k)
        self._check_backbone()

    def _check_backbone(self) -> None:
        if self.timm_name is not None:
            check_timm(self.timm_name)
        elif self.backbone not in (OWN_BACKBONE, MINI_BACKBONE):
            raise ValueError(
                f"backbone must be {OWN_BACKBONE}, {MINI_BACKBONE} or timm:NAME, got "
                f"{self.backbone!r}"
            )
        elif self.backbone == OWN_BACKBONE and self.image_size is not None:
            raise ValueError(
                "image_size is of other backbones; the own one has that of its encoder config"
            )
        if self.image_size is not None and self.image_size < 1:
            raise ValueError(f"image_size must be 1 or more, got {self.image_size}")
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"drop_path_rate must be within [0, 1), got {self.drop_path_rate}")

    @property
    def timm_name(self) -> str | None:
        """Name of the backbone in timm; None for the own one."""
        return self.backbone.removeprefix("timm:") if self.backbone.startswith("timm:") else None

    @property
    def dim(self) -> int:
        """D, the width of the backbone's embeddings."""
        if self.backbone == OWN_BACKBONE:
            return self.encoder.dim
        return MINI_WIDTHS[-1] if self.timm_name is None else timm_width(self.timm_name)

    @property
    def input_size(self) -> int:
        """Pixels of the faces that the backbone takes."""
        if self.backbone == OWN_BACKBONE:
            return self.encoder.image_size
        usual = MINI_SIZE if self.timm_name is None else timm_image_size(self.timm_name)
        return self.image_size or usual


def input_stage(config: ClassifierConfig) -> nn.Module:
    """Features (N, D) to features (N, D) and their gating: the input mixture, or a dense MLP of as
    many parameters."""
    dim = config.dim
    mixture = partial(MixtureOfExperts, dim, config.hidden, **_routing(config))
    return mixture() if config.input_mixture else Dense(mlp_of_size(dim, size_of(mixture)))


def output_stage(config: ClassifierConfig) -> nn.Module:
    """Features (N, D) to logits (N, L) and their gating: the output mixture, or a dense MLP of as
    many parameters."""
    dim = config.dim
    labels = len(config.labels)
    mixture = partial(OutputMixture, dim, config.hidden, labels, **_routing(config))
    if config.output_mixture:
        return mixture()
    heads = nn.Linear(dim, labels)
    return Dense(mlp_of_size(dim, size_of(mixture) - parameter_count(heads)), heads)


def _routing(config: ClassifierConfig) -> dict[str, Any]:
    """Arguments that both mixtures share."""
    gate = ROUTINGS[config.routing]
    counts = {"experts": config.experts, "top_k": config.top_k}
    return {**counts, "gate": gate, "shared": config.shared_expert}


class ClassifierHead(nn.Module):
    """Expression embeddings of the faces (N, D) to a logit for each label: a classifier without its
    backbone.

    ``forward(original, normalized)`` reads the embeddings that ``config.inputs`` names and ignores
    the other; it raises ``ValueError`` if a needed one is missing or if they differ in number. Over
    a frozen backbone it is all there is to train. In training, each of several processes gives the
    output of the whole batch that they share, as its statistics and losses are no sums.
    """

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        dim = config.dim
        both = config.inputs == "both"
        self.config = config
        # each feature on its own scale, or the few that are large for everybody would dominate
        self.norm = nn.BatchNorm1d(2 * dim if both else dim)
        self.dropout = nn.Dropout(config.dropout)
        self.fusion = FUSIONS[config.fusion](dim) if both else nn.Linear(dim, dim)
        self.input_stage = input_stage(config)
        self.output_stage = output_stage(config)

    def forward(
        self, original: Tensor | None = None, normalized: Tensor | None = None
    ) -> ClassifierOutput:
        faces = torch.cat(needed(self.config.inputs, original, normalized), dim=1)
        embeddings = self.norm(whole_batch(faces) if self.training else faces)
        if self.training and self.config.face_dropout and self.config.inputs == "both":
            embeddings = without_a_face(embeddings, self.config.face_dropout)
        features = self.fusion(self.dropout(embeddings))
        refined, input_gating = self.input_stage(features)
        logits, output_gating = self.output_stage(features + refined)
        return ClassifierOutput(logits, input_gating, output_gating)


def backbone_of(config: ClassifierConfig) -> tuple[ImageEncoder, nn.Module]:
    """A new backbone: an encoder, and what makes embeddings (N, D) of what it gives."""
    if config.backbone == OWN_BACKBONE:
        size = config.encoder
        expression = ExpressionEmbedding(size.grid**2, size.dim)
        return FaceEncoder(size, config.drop_path_rate), expression
    if config.timm_name is None:
        return MiniEncoder(config.image_size), nn.Identity()
    encoder = TimmEncoder(config.timm_name, config.image_size, config.drop_path_rate)
    return encoder, nn.Identity()  # these networks end with an embedding


class Classifier(nn.Module):
    """Faces to a logit for each label; images are (N, 3, S, S) in [0, 1] with S = ``image_size``.

    The backbone is a normalizer's, encoder and expression embedding, `MiniEncoder`, or any of timm;
    `ClassifierHead` reads its embeddings. ``forward(original, normalized)`` uses the images that
    ``config.inputs`` names and ignores the other. It raises ``ValueError`` if a needed one is
    missing, if they differ in number, and for another image size.
    """

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        self.encoder, self.expression = backbone_of(config)
        self.own = None  # of the normalized face, if it has a backbone of its own
        if config.inputs == "both" and not config.shared:
            self.own = nn.Sequential(*backbone_of(config))
        self.head = ClassifierHead(config)

    @property
    def image_size(self) -> int:
        """S, the side of the images in pixels."""
        return self.encoder.image_size

    def forward(
        self, original: Tensor | None = None, normalized: Tensor | None = None
    ) -> ClassifierOutput:
        images = needed(self.config.inputs, original, normalized)
        names = _names(self.config.inputs)
        if self.own is None:
            embeddings = self.embed(torch.cat(images)).chunk(len(images))
        else:
            embeddings = map(self.embed, images, names)
        return self.head(**dict(zip(names, embeddings, strict=True)))

    def embed(self, images: Tensor, face: str = "original") -> Tensor:
        """Embeddings (N, D) of images (N, 3, S, S) in [0, 1] by the backbone. ``face``: which face
        they show, original or normalized, where each has a backbone of its own."""
        if self.own is not None and face == "normalized":
            return self.own(images)
        return self.expression(self.encoder(images))

    def start_from(self, normalizer: Normalizer) -> None:
        """Copies a normalizer's encoder and expression embedding.

        Raises ``RuntimeError`` if they are of another size, ``ValueError`` if the backbone is
        another.
        """
        if self.config.backbone != OWN_BACKBONE:
            raise ValueError(
                f"the backbone {self.config.backbone} cannot start from a normalizer, only "
                f"{OWN_BACKBONE} can; its weights come by "
                "norface_lib.networks.pretrained.load_encoder_weights(classifier.encoder, source)"
            )
        backbones = [(self.encoder, self.expression)]
        if self.own is not None:
            backbones.append(tuple(self.own))
        for encoder, expression in backbones:
            encoder.load_state_dict(normalizer.encoder.state_dict())
            expression.load_state_dict(normalizer.expression.state_dict())

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Depth of a parameter by its name, for ``timm.optim.param_groups_layer_decay``: the
        encoder's, then all behind it.

        ``coarse`` is part of timm's call and changes nothing.
        """
        depths = {
            f"{prefix}.{name}": depth
            for prefix in ("encoder", "own.0")
            for name, depth in self.encoder.layers().items()
        }
        return lambda name: depths.get(name, 1 + max(depths.values()))


def needed(inputs: str, original: Tensor | None, normalized: Tensor | None) -> list[Tensor]:
    """The tensors (N, ...) that ``inputs`` names, the original first. ``ValueError`` if one is
    missing or they differ in N."""
    tensors = {"original": original, "normalized": normalized}
    tensors = {name: tensors[name] for name in _names(inputs)}
    missing = [name for name, tensor in tensors.items() if tensor is None]
    if missing:
        raise ValueError(
            f"a classifier of inputs={inputs!r} needs the {' and '.join(missing)} images too"
        )
    counts = [len(tensor) for tensor in tensors.values()]
    if len(set(counts)) > 1:
        raise ValueError(
            f"there must be as many original as normalized images, got {counts[0]} and {counts[1]}"
        )
    return list(tensors.values())


def _names(inputs: str) -> tuple[str, ...]:
    return ("original", "normalized") if inputs == "both" else (inputs,)


def auxiliary_loss(
    output: ClassifierOutput, importance_weight: float = 1e-3, load_weight: float = 1e-3
) -> Tensor:
    """Weighted importance and load loss of the mixtures that are on, added up, or 0: a scalar.

    Weights are the paper's lambda_imp and lambda_g&l (PAPER.md 1.2); reading the latter as the load
    is our choice (1.5). The output mixture counts with the mean over its labels.
    """
    loss = output.logits.new_zeros(())
    for gating in filter(None, (output.input_gating, output.output_gating)):
        loss = loss + importance_weight * importance(gating.gates)
        loss = loss + load_weight * load(gating.load)
    return loss
