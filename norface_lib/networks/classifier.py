"""The classification network: original and normalized face to a logit for each label, with a
mixture of experts at both ends.

Established are the two places of the mixtures, m = 4 experts with k = 2 kept, and two auxiliary
losses of weight 0.001 (PAPER.md 1.1, 1.2). The rest is our choice after PAPER.md 1.5: noisy top-k
gates (Shazeer et al. 2017), one gate and one head for each label at the output (MMoE, Ma et al.
2018), one embedding per face as the experts' input. At both ends an expert computes the samples
that a gate chose it for, and no sample is ever dropped: experts have no capacity that could be
full.

Shapes: N images, L labels, m experts, D the width of the encoder.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from norface_lib.networks.encoder import (
    TINY_ENCODER,
    EncoderConfig,
    FaceEncoder,
    TimmEncoder,
    check_timm,
    timm_width,
    with_tuples,
)
from norface_lib.networks.mixtures import (
    Dense,
    Gating,
    MixtureOfExperts,
    OutputMixture,
    check_top_k,
    importance,
    load,
    mlp,
)
from norface_lib.networks.normalizer import ExpressionEmbedding, Normalizer

INPUTS = ("original", "normalized", "both")
"""Faces that a classifier can take."""


OWN_BACKBONE = "norface"
"""The normalizer's encoder and expression embedding. Any other backbone is ``timm:NAME``."""


class ClassifierOutput(NamedTuple):
    """Logits (N, L) in the order of ``ClassifierConfig.labels``, and the gating of each mixture
    that is on."""

    logits: Tensor
    input_gating: Gating | None
    output_gating: Gating | None


class SumFusion(nn.Module):
    """Original and normalized embedding side by side (N, 2 D) to a linear layer of their sum (N,
    D)."""

    def __init__(self, dim: int):
        super().__init__()
        self.project = nn.Linear(dim, dim)

    def forward(self, embeddings: Tensor) -> Tensor:
        original, normalized = embeddings.chunk(2, dim=1)
        return self.project(original + normalized)


class GatedFusion(nn.Module):
    """Original and normalized embedding (N, 2 D) to a linear layer of g original + (1 - g)
    normalized (N, D).

    g (N, D) in (0, 1), a share for each feature, is the sigmoid of a linear layer of both: a gated
    multimodal unit (Arevalo et al. 2017). It starts at 1/2.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.gate = nn.Linear(2 * dim, dim)
        self.project = nn.Linear(dim, dim)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        original, normalized = embeddings.chunk(2, dim=1)
        return self.project(torch.lerp(normalized, original, self.gate(embeddings).sigmoid()))


FUSIONS: dict[str, Callable[[int], nn.Module]] = {
    "concat": lambda dim: nn.Linear(2 * dim, dim),
    "sum": SumFusion,
    "gated": GatedFusion,
}
"""Ways to make one feature vector (N, D) of the standardized embeddings (N, 2 D) of both faces, by
name: D -> module."""


@dataclass(frozen=True)
class ClassifierConfig:
    """Labels, inputs and parts of a classifier; ``dataclasses.asdict`` makes it JSON and
    `from_dict` brings it back.

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
    backbone: str = OWN_BACKBONE  # or timm:NAME, any network of timm
    # pixels of a timm backbone's input; None: as many as it was trained with
    image_size: int | None = None
    # stochastic depth of the backbone in training; MAE fine-tunes with 0.1
    drop_path_rate: float = 0.0

    def __post_init__(self):
        names = self.labels if isinstance(self.labels, tuple) else ()
        distinct = {name for name in names if isinstance(name, str)}
        if not names or len(distinct) != len(names):
            raise ValueError(f"labels must be a tuple of distinct names, got {self.labels!r}")
        if self.inputs not in INPUTS:
            raise ValueError(f"inputs must be one of {', '.join(INPUTS)}, got {self.inputs!r}")
        if self.hidden < 1:
            raise ValueError(f"hidden must be 1 or more, got {self.hidden}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be within [0, 1), got {self.dropout}")
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}, got {self.fusion!r}")
        check_top_k(self.experts, self.top_k)
        self._check_backbone()

    def _check_backbone(self) -> None:
        if self.timm_name is not None:
            check_timm(self.timm_name)
        elif self.backbone != OWN_BACKBONE:
            raise ValueError(f"backbone must be {OWN_BACKBONE} or timm:NAME, got {self.backbone!r}")
        elif self.image_size is not None:
            raise ValueError(
                "image_size is of timm backbones; the own one has that of its encoder config"
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
        return self.encoder.dim if self.timm_name is None else timm_width(self.timm_name)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ClassifierConfig":
        """The config of ``dataclasses.asdict``, also after JSON made lists of its tuples.
        ``TypeError`` for an unknown key."""
        encoder = EncoderConfig.from_dict(values["encoder"])
        return cls(**with_tuples(values) | {"encoder": encoder})


def input_stage(config: ClassifierConfig) -> nn.Module:
    """Features (N, D) to features (N, D) and their gating: the input mixture, or a dense MLP of as
    many parameters."""
    dim = config.dim
    mixture = partial(MixtureOfExperts, dim, config.hidden, config.experts, config.top_k)
    return mixture() if config.input_mixture else Dense(_mlp_of_size(dim, _size(mixture)))


def output_stage(config: ClassifierConfig) -> nn.Module:
    """Features (N, D) to logits (N, L) and their gating: the output mixture, or a dense MLP of as
    many parameters."""
    dim = config.dim
    labels = len(config.labels)
    mixture = partial(OutputMixture, dim, config.hidden, labels, config.experts, config.top_k)
    if config.output_mixture:
        return mixture()
    heads = nn.Linear(dim, labels)
    return Dense(_mlp_of_size(dim, _size(mixture) - parameter_count(heads)), heads)


def parameter_count(module: nn.Module) -> int:
    """Number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def _size(build: Callable[[], nn.Module]) -> int:
    """Parameters of the module that ``build`` makes, without spending memory or random numbers on
    it."""
    with torch.device("meta"):
        return parameter_count(build())


def _mlp_of_size(dim: int, parameters: int) -> nn.Sequential:
    """The MLP (..., dim) -> (..., dim) whose number of parameters comes nearest."""
    return mlp(dim, max(1, round((parameters - dim) / (2 * dim + 1))), dim)


class ClassifierHead(nn.Module):
    """Expression embeddings of the faces (N, D) to a logit for each label: a classifier without its
    backbone.

    ``forward(original, normalized)`` reads the embeddings that ``config.inputs`` names and ignores
    the other; it raises ``ValueError`` if a needed one is missing or if they differ in number. Over
    a frozen backbone it is all there is to train.
    """

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        dim = config.dim
        both = config.inputs == "both"
        self.config = config
        # each feature on its own scale: within one face the few that are large for everybody should
        # not dominate
        self.norm = nn.BatchNorm1d(2 * dim if both else dim)
        self.dropout = nn.Dropout(config.dropout)
        self.fusion = FUSIONS[config.fusion](dim) if both else nn.Linear(dim, dim)
        self.input_stage = input_stage(config)
        self.output_stage = output_stage(config)

    def forward(
        self, original: Tensor | None = None, normalized: Tensor | None = None
    ) -> ClassifierOutput:
        embeddings = torch.cat(needed(self.config.inputs, original, normalized), dim=1)
        features = self.fusion(self.dropout(self.norm(embeddings)))
        refined, input_gating = self.input_stage(features)
        logits, output_gating = self.output_stage(features + refined)
        return ClassifierOutput(logits, input_gating, output_gating)


class Classifier(nn.Module):
    """Faces to a logit for each label; images are (N, 3, S, S) in [0, 1] with S = ``image_size``.

    The backbone is a normalizer's, encoder and expression embedding, or any of timm;
    `ClassifierHead` reads its embeddings. ``forward(original, normalized)`` uses the images that
    ``config.inputs`` names and ignores the other. It raises ``ValueError`` if a needed one is
    missing, if they differ in number, and for another image size.
    """

    def __init__(self, config: ClassifierConfig):
        super().__init__()
        self.config = config
        if config.timm_name is None:
            self.encoder = FaceEncoder(config.encoder, config.drop_path_rate)
            self.expression = ExpressionEmbedding(config.encoder.grid**2, config.encoder.dim)
        else:
            self.encoder = TimmEncoder(config.timm_name, config.image_size, config.drop_path_rate)
            self.expression = nn.Identity()  # these networks end with an embedding
        self.head = ClassifierHead(config)

    @property
    def image_size(self) -> int:
        """S, the side of the images in pixels."""
        return self.encoder.image_size

    def forward(
        self, original: Tensor | None = None, normalized: Tensor | None = None
    ) -> ClassifierOutput:
        images = needed(self.config.inputs, original, normalized)
        embeddings = self.embed(torch.cat(images)).chunk(len(images))
        return self.head(**dict(zip(_names(self.config.inputs), embeddings, strict=True)))

    def embed(self, images: Tensor) -> Tensor:
        """Embeddings (N, D) of images (N, 3, S, S) in [0, 1] by the backbone."""
        return self.expression(self.encoder(images))

    def start_from(self, normalizer: Normalizer) -> None:
        """Copies a normalizer's encoder and expression embedding.

        Raises ``RuntimeError`` if they are of another size, ``ValueError`` if the backbone is one
        of timm.
        """
        if self.config.timm_name is not None:
            raise ValueError(
                f"the backbone {self.config.backbone} cannot start from a normalizer, only "
                f"{OWN_BACKBONE} can; "
                "its weights come by "
                "norface_lib.networks.pretrained.load_encoder_weights(classifier.encoder, source)"
            )
        self.encoder.load_state_dict(normalizer.encoder.state_dict())
        self.expression.load_state_dict(normalizer.expression.state_dict())

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Depth of a parameter by its name, for ``timm.optim.param_groups_layer_decay``: the
        encoder's, then all behind it.

        ``coarse`` is part of timm's call and changes nothing.
        """
        depths = {f"encoder.{name}": depth for name, depth in self.encoder.layers().items()}
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
    """Weighted importance and load loss of the mixtures that are on, added up; 0 if both are off.
    Scalar.

    Weights are the paper's lambda_imp and lambda_g&l (PAPER.md 1.2); reading the latter as the load
    is our choice (1.5). The output mixture counts with the mean over its labels.
    """
    loss = output.logits.new_zeros(())
    for gating in (output.input_gating, output.output_gating):
        if gating is not None:
            loss = loss + importance_weight * importance(gating.gates)
            loss = loss + load_weight * load(gating.load)
    return loss
