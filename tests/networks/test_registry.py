"""What holds for every registered network, on tiny versions of each."""

import copy

import pytest
import torch
from registered import entries
from torch.func import functional_call, jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from consistency_lab.errors import UserError
from consistency_lab.networks.registry import NETWORKS, build_network

SHAPE = (2, 8, 8)
TINY = [
    "unet(width=8, attention=(1,))",
    "dit(width=16, depth=2, heads=2)",
    "mlp(width=160, depth=1, vector=16)",
    "unet-ddpm(width=8, groups=4, multipliers=(1, 2), blocks=1)",
    "dit-s2(width=24, depth=1, heads=2)",
    "uvit-s(width=32, depth=3, heads=2)",
]
every_network = pytest.mark.parametrize("choice", entries(NETWORKS, TINY), ids=lambda choice: choice.partition("(")[0])


def awake(choice, classes=0, dtype=torch.float32, shape=SHAPE):
    """A network whose zero-initialised layers have been given values, so that its output says something."""
    network = build_network(choice, shape, classes).to(dtype)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator).to(dtype)
    return network


def for_transforms(network):
    """The network for vmap and jvp, of which older versions of torch know one layout alone (see `UNet`)."""
    older = torch.torch_version.TorchVersion(torch.__version__) < (2, 14)
    return network.to(memory_format=torch.contiguous_format) if older else network


def batch(count, classes=0, dtype=torch.float32, shape=SHAPE):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, *shape, generator=generator).to(dtype)
    t = torch.rand(count, generator=generator).to(dtype)
    return x, t, torch.arange(count) % classes if classes else None


@every_network
def test_output_starts_at_zero_and_has_the_shape_of_the_images(choice):
    for shape in [(1, 8, 8), (3, 16, 8)]:
        network = build_network(choice, shape)
        x, t, _ = batch(3, shape=shape)
        assert torch.equal(network(x, t), torch.zeros_like(x))
        assert awake(choice, shape=shape)(x, t).std() > 1e-3


@every_network
def test_weights_are_a_function_of_the_seed_and_the_global_state_is_untouched(choice):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (build_network(choice, SHAPE, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b, _ in pairs)
    assert any(not torch.equal(a, c) for a, _, c in pairs)


@every_network
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_one_image_does_not_depend_on_the_rest_of_the_batch(choice, dtype, tolerance):
    network = awake(choice, classes=3, dtype=dtype)
    x, t, cond = batch(17, 3, dtype)
    with torch.no_grad():
        whole = network(x, t, cond)
        alone = torch.cat([network(x[i : i + 1], t[i : i + 1], cond[i : i + 1]) for i in range(17)])
        order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
        shuffled = network(x[order], t[order], cond[order])
    scale = whole.abs().max()
    assert (alone - whole).abs().max() <= tolerance * scale
    assert (shuffled - whole[order]).abs().max() <= tolerance * scale


@every_network
def test_no_label_is_the_last_label_and_labels_matter(choice):
    network = awake(choice, classes=3)
    x, t, cond = batch(4, 3)
    without = network(x, t, None)
    assert torch.equal(without, network(x, t, torch.full((4,), 3)))
    assert (network(x, t, cond) - without).abs().amax(dim=(1, 2, 3)).min() > 1e-4


@every_network
def test_every_parameter_matters(choice):
    network = awake(choice, classes=3)
    x, t, cond = batch(8, 3)
    network(x, t, cond).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    # A bias on keys shifts every score of a row alike, which softmax does not see.
    assert [name for name in silent if not name.endswith("key.bias")] == []


@every_network
def test_hessian_vector_products_equal_differences_of_gradients(choice):
    network = awake(choice, dtype=torch.float64)
    x, t, _ = batch(2, dtype=torch.float64)
    parameters = list(network.parameters())
    generator = torch.Generator().manual_seed(3)
    direction = [torch.randn(p.shape, generator=generator).to(p.dtype) for p in parameters]

    def gradient(create_graph=False):
        return torch.autograd.grad(network(x, t).square().mean(), parameters, create_graph=create_graph)

    with sdpa_kernel(SDPBackend.MATH):
        slope = sum((g * d).sum() for g, d in zip(gradient(create_graph=True), direction, strict=True))
        exact = torch.autograd.grad(slope, parameters)
        sides = []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p += step * d
            sides.append(gradient())
    for e, plus, minus in zip(exact, *sides, strict=True):
        torch.testing.assert_close((plus - minus) / 2e-5, e, rtol=1e-4, atol=1e-5 * max(1.0, float(e.abs().max())))


@every_network
def test_forward_mode_equals_reverse_mode(choice):
    network = for_transforms(awake(choice, dtype=torch.float64))
    x, t, _ = batch(2, dtype=torch.float64)
    tangent = torch.randn_like(x)
    with sdpa_kernel(SDPBackend.MATH):
        out, forward = jvp(lambda image: network(image, t), (x,), (tangent,))
        weight = torch.randn_like(out)
        x.requires_grad_(True)
        (reverse,) = torch.autograd.grad(network(x, t), x, weight)
    torch.testing.assert_close((forward * weight).sum(), (reverse * tangent).sum(), rtol=1e-9, atol=1e-9)


@every_network
def test_many_sets_of_weights_in_one_call(choice):
    network = for_transforms(awake(choice))
    x, t, _ = batch(2)
    weights = {name: torch.stack([p, 1.1 * p]) for name, p in network.named_parameters()}
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        both = vmap(lambda w: functional_call(network, w, (x, t)))(weights)
        for index in range(2):
            one = functional_call(network, {name: w[index] for name, w in weights.items()}, (x, t))
            torch.testing.assert_close(both[index], one, rtol=1e-4, atol=1e-4 * float(one.abs().max()))


@every_network
def test_copies_and_reloaded_weights_give_the_same_output_to_the_bit(choice):
    network = awake(choice)
    x, t, _ = batch(3)
    fresh = build_network(choice, SHAPE, seed=9)
    fresh.load_state_dict({name: tensor.contiguous() for name, tensor in network.state_dict().items()})
    for twin in (copy.deepcopy(network), fresh):
        assert torch.equal(twin(x, t), network(x, t))


@every_network
def test_bfloat16_autocast_changes_little(choice):
    network = awake(choice, classes=3)
    x, t, cond = batch(4, 3)
    with torch.no_grad():
        exact = network(x, t, cond)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x, t, cond)
    assert 0 < (rough - exact).square().mean() < 0.05**2 * exact.square().mean()


@every_network
def test_it_learns_what_depends_on_image_time_and_label(choice):
    network = build_network(choice, SHAPE, classes=2)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(4)
    losses = []
    # 2 at first; 1 is the best without the image or without the label, 0.5 the best without the time.
    while len(losses) < 400 and (len(losses) < 10 or sum(losses[-10:]) / 10 > 0.35):
        x = torch.randn(32, *SHAPE, generator=generator)
        late, label = torch.randint(0, 2, (2, 32), generator=generator)
        target = 2**0.5 * late[:, None, None, None] * x + (2 * label - 1)[:, None, None, None]
        loss = (network(x, 0.2 + 0.6 * late, label) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2, abs=0.3)
    assert sum(losses[-10:]) / 10 <= 0.35


@every_network
def test_bad_input_is_one_clear_sentence(choice):
    network = build_network(choice, SHAPE)
    x, t, _ = batch(2)
    with pytest.raises(UserError, match="without classes"):
        network(x, t, torch.zeros(2, dtype=torch.long))
    with pytest.raises(UserError, match=r"takes images of shape \(2, 8, 8\), not \(2, 4, 8\)"):
        network(x[:, :, :4], t)
    with pytest.raises(UserError, match="one time per image"):
        network(x, t[:1])
    with pytest.raises(UserError, match=r"give \(channels, height, width\)"):
        build_network(choice, (8, 8))
    with pytest.raises(UserError, match="-1 classes"):
        build_network(choice, SHAPE, -1)


def test_unknown_names_and_options_say_what_exists():
    with pytest.raises(UserError, match="Did you mean 'unet'"):
        build_network("unett", SHAPE)
    with pytest.raises(UserError, match="Did you mean 'width'"):
        build_network("unet(widht=3)", SHAPE)


@pytest.mark.parametrize(
    "choice",
    [
        "mlp(width=0)",
        "mlp(depth=1.5)",
        "dit(depth=0)",
        "dit(patch=0)",
        "dit(heads=-1)",
        "unet(blocks=0)",
        "uvit-s(heads=0)",
    ],
)
def test_options_that_must_be_counts(choice):
    with pytest.raises(UserError, match="a whole number"):
        build_network(choice, SHAPE)


@pytest.mark.parametrize(
    ("name", "shape", "published"),
    [
        # Ho et al. 2020, appendix B: 35.7 M. Peebles & Xie 2023: 33 M with 1000 classes. Bao et al. 2023: 44 M.
        ("unet-ddpm", (3, 32, 32), 35.7e6),
        ("dit-s2", (4, 32, 32), 32.6e6),
        ("uvit-s", (3, 32, 32), 44.5e6),
    ],
)
def test_paper_scale_networks_have_their_published_size(name, shape, published):
    assert sum(p.numel() for p in build_network(name, shape).parameters()) == pytest.approx(published, rel=0.01)
