"""Gates, sparse dispatch, the classifier with each of its settings, and that it can learn."""

import json
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from timm.optim import param_groups_layer_decay
from torch.utils.flop_counter import FlopCounterMode

from norface_lib.cli.bench.classifier import dense_sum
from norface_lib.networks.classifier import (
    Classifier,
    ClassifierConfig,
    ClassifierHead,
    auxiliary_loss,
    input_stage,
    output_stage,
    parameter_count,
)
from norface_lib.networks.encoder import EncoderConfig
from norface_lib.networks.fusion import FUSIONS, GatedFusion, SumFusion
from norface_lib.networks.mixtures import (
    MixtureOfExperts,
    NoisyTopKGate,
    OutputMixture,
    importance,
    keep_top_k,
    load,
    sparse_sum,
)
from norface_lib.networks.normalizer import Normalizer, NormalizerConfig
from norface_lib.networks.weights import load_classifier, save_classifier

CONFIG = ClassifierConfig(
    labels=("AU01", "AU02", "AU04"),
    encoder=EncoderConfig(image_size=16, patch_size=8, dim=32, depth=1, heads=2, stem=()),
    hidden=24,
    dropout=0.0,
)
TIMM = replace(CONFIG, backbone="timm:test_resnet.r160_in1k", image_size=32)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def faces():
    """Original and normalized images, (8, 3, 16, 16)."""
    return {"original": torch.rand(8, 3, 16, 16), "normalized": torch.rand(8, 3, 16, 16)}


def opinionated(mixture):
    """The mixture with gates that prefer some experts to others, as after training."""
    torch.nn.init.normal_(mixture.gate.clean.weight)
    return mixture


@pytest.mark.parametrize("labels", [None, 5])
@pytest.mark.parametrize("top_k", [1, 2, 4])
@pytest.mark.parametrize("training", [True, False])
def test_gates_keep_k_experts_and_sum_to_one(labels, top_k, training):
    gating = NoisyTopKGate(16, 4, top_k, labels).train(training)(torch.randn(50, 16))
    shape = (50, 4) if labels is None else (50, 5, 4)
    assert all(tensor.shape == shape for tensor in gating)
    assert ((gating.gates > 0).sum(dim=-1) == top_k).all()
    torch.testing.assert_close(gating.gates.sum(dim=-1), torch.ones(shape[:-1]))
    assert ((gating.load >= 0) & (gating.load <= 1)).all()
    if not training:
        assert torch.equal(gating.load, (gating.gates > 0).float())


def test_kept_gates_are_a_softmax_of_the_largest_logits():
    gates, kept = keep_top_k(torch.tensor([[1.0, 3.0, -2.0, 2.0]]), 2)
    torch.testing.assert_close(gates, torch.tensor([[0.0, 0.731059, 0.0, 0.268941]]))
    assert kept.tolist() == [[0, 1, 0, 1]]


def test_gates_are_noisy_in_training_only():
    gate, x = NoisyTopKGate(16, 4, 2), torch.randn(50, 16)
    assert not torch.equal(gate(x).gates, gate(x).gates)
    gate.eval()
    assert torch.equal(gate(x).gates, gate(x).gates)


@pytest.mark.parametrize("labels", [None, 5])
@pytest.mark.parametrize(("experts", "top_k"), [(4, 1), (4, 2), (4, 4), (16, 2)])
def test_sparse_dispatch_is_the_dense_sum_forward_and_backward(experts, top_k, labels):
    mixture = (
        MixtureOfExperts(16, 24, experts, top_k)
        if labels is None
        else OutputMixture(16, 24, labels, experts, top_k)
    )
    read = None if labels is None else partial(F.linear, weight=mixture.head_weight)
    x = torch.randn(50, 16, requires_grad=True)
    gates = opinionated(mixture).eval().gate(x).gates
    inputs = [x, *mixture.experts.parameters(), mixture.gate.clean.weight]
    results = []
    for way in (sparse_sum, dense_sum):
        output = way(mixture.experts, x, gates if labels else gates[:, None], read)
        results.append(
            [output, *torch.autograd.grad(output.square().sum(), inputs, retain_graph=True)]
        )
    for sparse, dense in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense, atol=1e-5, rtol=1e-5)


def test_no_sample_is_dropped_however_many_choose_one_expert():
    # gates start at 0, so that all choose alike
    mixture, x = MixtureOfExperts(16, 24, 8, 2).eval(), torch.randn(500, 16)
    output, gating = mixture(x)
    assert (gating.gates > 0).sum(dim=0).max() == 500
    torch.testing.assert_close(output, dense_sum(mixture.experts, x, gating.gates[:, None]))


def test_a_sample_that_is_not_finite_shows(faces):
    faces["original"][3, 0, 0, 0] = float("nan")
    logits = Classifier(CONFIG).eval()(**faces).logits
    assert logits.isnan().all(dim=1).tolist() == [row == 3 for row in range(8)]


def rows_of_experts(mixture, x):
    """How many samples each expert computes, and the gating."""
    rows = []
    for expert in mixture.experts:
        expert.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    return rows, mixture(x)[1]


def test_only_the_chosen_experts_compute_a_sample():
    rows, gating = rows_of_experts(opinionated(MixtureOfExperts(16, 24, 4, 2)), torch.randn(50, 16))
    assert rows == (gating.gates > 0).sum(dim=0).tolist()
    assert sum(rows) == 2 * 50


def test_an_output_expert_computes_once_what_any_label_chose_it_for():
    rows, gating = rows_of_experts(
        opinionated(OutputMixture(16, 24, labels=3, experts=16)), torch.randn(50, 16)
    )
    assert rows == (gating.gates > 0).any(dim=1).sum(dim=0).tolist()
    assert 2 * 50 < sum(rows) < 16 * 50


@pytest.mark.parametrize("labels", [None, 1])
@pytest.mark.parametrize("top_k", [1, 2, 16])
def test_k_of_m_experts_cost_k_of_m_operations(top_k, labels):
    dim, hidden, experts, count = 16, 24, 16, 50
    build = MixtureOfExperts if labels is None else partial(OutputMixture, labels=labels)
    mixture, x = (
        opinionated(build(dim, hidden, experts=experts, top_k=top_k)).eval(),
        torch.randn(count, dim),
    )
    with FlopCounterMode(display=False) as whole:
        mixture(x)
    with FlopCounterMode(display=False) as gate:
        mixture.gate(x)
    head = 0 if labels is None else dim * labels  # each expert's features are read once
    dense = 2 * count * experts * (2 * dim * hidden + head)
    assert (whole.get_total_flops() - gate.get_total_flops()) * experts == dense * top_k


def test_an_expert_that_nobody_chose_has_a_gradient_of_zero():
    # gates start at 0, so that all samples choose alike
    mixture = MixtureOfExperts(16, 24, 4, 1).eval()
    output, gating = mixture(torch.randn(5, 16))
    output.sum().backward()
    chosen = gating.gates.sum(dim=0) > 0
    moved = torch.stack([expert[0].weight.grad.any() for expert in mixture.experts])
    assert chosen.sum() == 1
    assert torch.equal(moved, chosen)


def test_output_mixture_is_a_gate_and_a_head_for_each_label():
    mixture, x = opinionated(OutputMixture(16, 24, labels=3)), torch.randn(10, 16)
    logits, gating = mixture(x)
    for label in range(3):
        mixed = sum(
            gating.gates[:, label, [index]] * expert(x)
            for index, expert in enumerate(mixture.experts)
        )
        torch.testing.assert_close(
            logits[:, label], mixed @ mixture.head_weight[label] + mixture.head_bias[label]
        )


@pytest.mark.parametrize("build", [MixtureOfExperts, partial(OutputMixture, labels=3)])
def test_gradient_flows_to_gates_from_task_importance_and_load(build):
    mixture = build(16, 24)
    output, gating = opinionated(mixture)(torch.randn(50, 16))
    for value in (output.square().mean(), importance(gating.gates), load(gating.load)):
        gradients = torch.autograd.grad(
            value, [mixture.gate.clean.weight, mixture.gate.noise.weight], retain_graph=True
        )
        assert all(gradient.any() for gradient in gradients)


def test_auxiliary_losses_spread_a_collapsed_gate():
    mixture = MixtureOfExperts(16, 24)
    torch.nn.init.zeros_(mixture.gate.noise.weight)
    x = torch.randn(64, 16) + 1
    with torch.no_grad():
        # the mean of x is 1, so that the first two experts take nearly all
        mixture.gate.clean.weight[:2] = 0.3
    optimizer = torch.optim.Adam(mixture.gate.parameters(), lr=0.02)
    history = []
    for _ in range(40):
        gating = mixture(x)[1]
        loss = importance(gating.gates) + load(gating.load)
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert history[0] > 1
    assert history[-1] < 0.1 * history[0]


@pytest.mark.parametrize("stage", [input_stage, output_stage])
@pytest.mark.parametrize(
    "config", [CONFIG, replace(CONFIG, experts=8, hidden=100), ClassifierConfig(CONFIG.labels)]
)
def test_a_mixture_that_is_off_leaves_equal_parameters(stage, config):
    dense = stage(replace(config, input_mixture=False, output_mixture=False))
    difference = abs(parameter_count(dense) - parameter_count(stage(config)))
    assert difference <= 0.02 * parameter_count(dense)
    assert difference <= config.encoder.dim + 1  # half of what one unit of width adds
    assert not any(parameter.is_meta for parameter in dense.parameters())


def test_fusions_are_what_they_say():
    original, normalized = torch.randn(2, 5, 16)
    both = torch.cat([original, normalized], dim=1)
    added, gated = SumFusion(16), GatedFusion(16)
    torch.testing.assert_close(added(both), added.project(original + normalized))
    # as it starts
    torch.testing.assert_close(gated(both), gated.project((original + normalized) / 2))
    torch.nn.init.normal_(gated.gate.weight)
    share = gated.gate(both).sigmoid()
    torch.testing.assert_close(
        gated(both), gated.project(share * original + (1 - share) * normalized)
    )
    torch.nn.init.constant_(gated.gate.bias, 1e4)  # wide open
    torch.testing.assert_close(gated(both), gated.project(original))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_trains_on_both_faces(fusion):
    head = ClassifierHead(replace(CONFIG, fusion=fusion))
    faces = {name: torch.randn(8, 32, requires_grad=True) for name in ("original", "normalized")}
    head(**faces).logits.square().sum().backward()
    assert all(embedding.grad.any() for embedding in faces.values())
    assert all(parameter.grad is not None for parameter in head.fusion.parameters())


@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_face_is_fused_with_nothing(fusion):
    head = ClassifierHead(replace(CONFIG, inputs="original", fusion=fusion))
    assert isinstance(head.fusion, torch.nn.Linear) and head.fusion.in_features == 32


@pytest.mark.parametrize("input_mixture", [True, False])
@pytest.mark.parametrize("output_mixture", [True, False])
@pytest.mark.parametrize("inputs", ["original", "normalized", "both"])
def test_every_setting_classifies(faces, inputs, input_mixture, output_mixture):
    config = replace(
        CONFIG, inputs=inputs, input_mixture=input_mixture, output_mixture=output_mixture
    )
    output = Classifier(config)(**faces)
    assert output.logits.shape == (8, 3)
    assert (output.input_gating is not None, output.output_gating is not None) == (
        input_mixture,
        output_mixture,
    )
    expected = sum(
        0.1 * importance(gating.gates) + 0.01 * load(gating.load)
        for gating in (output.input_gating, output.output_gating)
        if gating is not None
    )
    torch.testing.assert_close(
        auxiliary_loss(output, 0.1, 0.01), torch.as_tensor(expected, dtype=torch.float32)
    )


@pytest.mark.parametrize("inputs", ["original", "normalized", "both"])
def test_logits_depend_on_the_named_inputs_only(faces, inputs):
    classifier = Classifier(replace(CONFIG, inputs=inputs)).eval()
    before = classifier(**faces).logits
    for name in faces:
        changed = not torch.equal(before, classifier(**faces | {name: faces[name].flip(-1)}).logits)
        assert changed == (inputs in (name, "both"))


def test_backbone_runs_once_on_both_images_and_keeps_pairs_together(faces):
    classifier, calls = Classifier(CONFIG).eval(), []
    classifier.encoder.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    whole = classifier(**faces).logits
    assert calls == [16]
    third = classifier(**{name: images[2:3] for name, images in faces.items()}).logits
    torch.testing.assert_close(whole[2:3], third, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mixtures", [True, False])
def test_classifier_overfits_eight_images(faces, mixtures):
    classifier = Classifier(replace(CONFIG, input_mixture=mixtures, output_mixture=mixtures))
    labels = torch.randint(0, 2, (8, 3)).float()
    optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
    for _ in range(60):
        output = classifier(**faces)
        loss = F.binary_cross_entropy_with_logits(output.logits, labels) + auxiliary_loss(output)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    logits = classifier.eval()(**faces).logits
    assert F.binary_cross_entropy_with_logits(logits, labels) < 0.1


def test_classifier_trains_in_bfloat16(faces):
    classifier = Classifier(CONFIG)
    with torch.autocast("cpu", torch.bfloat16):
        output = classifier(**faces)
    (output.logits.float().square().mean() + auxiliary_loss(output)).backward()
    assert output.input_gating.gates.dtype == torch.float32
    assert all(parameter.grad.isfinite().all() for parameter in classifier.parameters())


def test_config_survives_json():
    own = replace(CONFIG, inputs="normalized", experts=6, top_k=3, encoder=EncoderConfig())
    for config in (own, replace(TIMM, fusion="gated", drop_path_rate=0.1)):
        assert ClassifierConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config
    with pytest.raises(TypeError, match="expert_count"):
        ClassifierConfig.from_dict(asdict(config) | {"expert_count": 4})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": ()}, "labels"),
        ({"labels": "AU01"}, "labels"),
        ({"labels": (1, 2)}, "labels"),
        ({"labels": ("AU01", "AU01")}, "labels"),
        ({"inputs": "target"}, "inputs"),
        ({"hidden": 0}, "hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"top_k": 5}, "top_k"),
        ({"top_k": 0}, "top_k"),
        ({"fusion": "product"}, "fusion"),
        ({"routing": "chance"}, "routing"),
        ({"drop_path_rate": 1.0}, "drop_path_rate"),
        ({"backbone": "resnet18"}, "norface, mini or timm:NAME"),
        ({"backbone": "timm:no_such_net"}, "timm has no network 'no_such_net'"),
        ({"backbone": "timm:resnet18.no_such_tag"}, "timm has no network"),
        ({"backbone": "timm:resnet18", "image_size": 0}, "image_size"),
        ({"image_size": 112}, "encoder config"),
    ],
)
def test_config_refuses_what_cannot_be(values, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **values)


@pytest.mark.parametrize("inputs", ["original", "normalized", "both"])
def test_the_head_reads_the_embeddings_that_the_backbone_makes(faces, inputs):
    classifier = Classifier(replace(CONFIG, inputs=inputs)).eval()
    embeddings = {
        name: classifier.expression(classifier.encoder(images)) for name, images in faces.items()
    }
    torch.testing.assert_close(
        classifier.head(**embeddings).logits, classifier(**faces).logits, atol=1e-5, rtol=1e-4
    )


def test_classifier_refuses_missing_or_unlike_images(faces):
    classifier = Classifier(CONFIG)
    with pytest.raises(ValueError, match="needs the normalized images"):
        classifier(original=faces["original"])
    with pytest.raises(ValueError, match="as many"):
        classifier(faces["original"], faces["normalized"][:3])
    with pytest.raises(ValueError, match="shape"):
        classifier(torch.rand(8, 3, 20, 20), torch.rand(8, 3, 20, 20))


# --- networks of timm as backbones ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dim"),
    [
        ("test_vit.r160_in1k", 64),
        ("test_resnet.r160_in1k", 96),
        ("test_convnext", 64),
        ("mobilenetv3_small_050", 1024),
    ],
)
def test_any_network_of_timm_is_a_backbone(name, dim):
    config = replace(TIMM, backbone=f"timm:{name}")
    classifier = Classifier(config)
    images = {key: torch.rand(4, 3, 32, 32) for key in ("original", "normalized")}
    output = classifier(**images)
    assert config.dim == dim and classifier.image_size == 32
    assert output.logits.shape == (4, 3) and output.input_gating.gates.shape == (4, 4)
    output.logits.square().sum().backward()
    assert next(classifier.encoder.parameters()).grad.any()


def test_a_backbone_of_timm_sees_images_of_its_own_size_colors_and_no_other():
    encoder = Classifier(replace(TIMM, image_size=None)).eval().encoder
    known = encoder.network.pretrained_cfg
    images = torch.rand(2, 3, 160, 160)
    mean, std = (torch.tensor(known[name]).view(3, 1, 1) for name in ("mean", "std"))
    torch.testing.assert_close(encoder(images), encoder.network((images - mean) / std))
    with pytest.raises(ValueError, match=r"shape \(N, 3, 160, 160\)"):
        encoder(torch.rand(2, 3, 112, 112))


def test_what_a_network_of_timm_does_not_take_is_an_error():
    with pytest.raises(ValueError, match=r"timm's vgg11 cannot be built with.*drop_path_rate"):
        Classifier(replace(CONFIG, backbone="timm:vgg11", drop_path_rate=0.1))


def test_only_the_own_backbone_starts_from_a_normalizer():
    with pytest.raises(
        ValueError,
        match=r"timm:test_resnet\.r160_in1k cannot start from a normalizer.*load_encoder_weights",
    ):
        Classifier(TIMM).start_from(
            Normalizer(NormalizerConfig(encoder=CONFIG.encoder, merging_blocks=1, widths=(16,)))
        )


def test_drop_path_is_in_training_only_and_changes_no_weights(faces):
    config = replace(CONFIG, encoder=replace(CONFIG.encoder, depth=2))
    plain, dropping = Classifier(config), Classifier(replace(config, drop_path_rate=0.5))
    dropping.load_state_dict(plain.state_dict())
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in dropping.encoder.vit.blocks]
    assert rates == [0.0, 0.5]
    tokens = [dropping.train(training).encoder(faces["original"]) for training in (True, False)]
    assert not torch.allclose(*tokens)
    torch.testing.assert_close(tokens[1], plain.eval().encoder(faces["original"]))


@pytest.mark.parametrize("config", [CONFIG, replace(TIMM, backbone="timm:test_vit.r160_in1k")])
def test_layers_are_counted_from_the_stem_to_the_head(config):
    classifier = Classifier(replace(config, encoder=replace(config.encoder, depth=2)))
    groups = param_groups_layer_decay(classifier, layer_decay=0.5)
    scales = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    of = {name: scales[id(p)] for name, p in classifier.named_parameters()}
    child = "network" if config.timm_name else "vit"
    blocks = len(getattr(classifier.encoder, child).blocks)
    assert of[f"encoder.{child}.pos_embed"] == 0.5 ** (blocks + 1)
    for block in range(blocks):
        assert of[f"encoder.{child}.blocks.{block}.mlp.fc1.weight"] == 0.5 ** (blocks - block)
    assert {scale for name, scale in of.items() if not name.startswith("encoder.")} == {1.0}


@pytest.mark.parametrize("config", [TIMM, replace(CONFIG, fusion="gated")])
def test_a_checkpoint_brings_back_the_backbone(tmp_path, config):
    classifier = Classifier(config).half().float().eval()
    classifier.head.norm.num_batches_tracked += 100_001  # more than half precision can say
    images = [torch.rand(3, 3, classifier.image_size, classifier.image_size) for _ in range(2)]
    again, _ = load_classifier(save_classifier(classifier, tmp_path / "detector.safetensors", {}))
    assert again.config == config and again.head.norm.num_batches_tracked == 100_001
    torch.testing.assert_close(
        again(*images).logits, classifier(*images).logits, atol=1e-3, rtol=1e-3
    )


def test_a_card_from_before_these_settings_loads(tmp_path):
    path = save_classifier(Classifier(CONFIG), tmp_path / "detector.safetensors", {})
    card = json.loads(path.with_suffix(".json").read_text())
    for name in ("fusion", "backbone", "image_size", "drop_path_rate", "routing", "shared_expert"):
        del card["config"][name]
    del card["fingerprint"]
    path.with_suffix(".json").write_text(json.dumps(card))
    assert load_classifier(path)[0].config == CONFIG
