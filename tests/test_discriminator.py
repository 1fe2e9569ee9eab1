"""The patch discriminator: its shapes, what a patch sees, its spectral norms, and that it learns to
tell."""

import pytest
import torch

from norface_lib.networks.discriminator import Discriminator, DiscriminatorConfig
from norface_lib.training.image_losses import hinge_discriminator, r1_penalty

SMALL = DiscriminatorConfig(width=8)


@pytest.mark.parametrize(("size", "side"), [(112, 12), (224, 26), (256, 30)])
def test_there_is_one_logit_a_patch(size, side):
    assert Discriminator(SMALL)(torch.rand(2, 3, size, size)).shape == (2, 1, side, side)


@pytest.mark.parametrize("stages", [2, 3])
def test_a_logit_sees_its_patch_and_no_more(stages):
    config = DiscriminatorConfig(width=8, stages=stages)
    images = torch.rand(1, 3, 128, 128, requires_grad=True)
    logits = Discriminator(config)(images)
    middle = logits.shape[-1] // 2
    (gradient,) = torch.autograd.grad(logits[0, 0, middle, middle], images)
    seen = gradient[0].abs().sum(0) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == config.patch
    assert config.patch == {2: 34, 3: 70}[stages]


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (2, 1, 112, 112), (3, 112, 112)])
def test_images_that_hold_no_patch_are_refused(shape):
    with pytest.raises(ValueError, match="S >= 70"):
        Discriminator(SMALL)(torch.rand(shape))


def spectral_norms(model):
    """The largest singular value of each weight as a matrix."""
    weights = [module.weight for module in model.modules() if hasattr(module, "parametrizations")]
    return torch.stack([torch.linalg.svdvals(weight.detach().flatten(1))[0] for weight in weights])


def test_it_learns_to_tell_fine_from_coarse_and_keeps_its_spectral_norms():
    """Real: noise of single pixels. Fake: the same, smoothed to its size and spread, so that no
    patch's mean tells them."""
    torch.manual_seed(0)
    model = Discriminator(SMALL)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3, betas=(0.5, 0.999))

    def draw():
        coarse = torch.nn.functional.interpolate(torch.rand(4, 3, 28, 28), size=112, mode="nearest")
        return torch.rand(4, 3, 112, 112), coarse

    for _ in range(15):
        real, fake = draw()
        real.requires_grad_()
        logits = model(real)
        loss = hinge_discriminator(logits, model(fake)) + 0.1 * r1_penalty(logits, real)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    real, fake = (model.eval()(images) for images in draw())
    assert (real > 0).float().mean() > 0.95 and (fake < 0).float().mean() > 0.95
    norms = spectral_norms(model)
    assert len(norms) == 5
    torch.testing.assert_close(norms, torch.ones(5), atol=0.1, rtol=0)
