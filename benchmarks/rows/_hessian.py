"""What the rows of curvature are measured on: a U-Net with SiLU and group norm and its denoising loss, ours and as the peers take it."""

SAMPLES = 32


def subject(samples=SAMPLES):
    import torch

    from consistency_lab.diffusion.denoiser import NetworkDenoiser
    from consistency_lab.diffusion.loss import denoising_loss
    from consistency_lab.diffusion.schedule import SCHEDULES
    from consistency_lab.networks.registry import build_network
    from consistency_lab.probes.frozen import FrozenBatch
    from consistency_lab.probes.subject import Subject

    generator = torch.Generator().manual_seed(0)
    shape = (3, 16, 16)
    network = build_network("unet(width=16)", shape, seed=0).eval()
    with torch.no_grad():  # its last layer starts at 0, where second derivatives vanish
        for p in network.parameters():
            p.add_(0.02 * torch.randn(p.shape, generator=generator))
    x0, eps = (torch.randn(samples, *shape, generator=generator) for _ in range(2))
    times = torch.linspace(0.05, 0.95, samples, dtype=torch.float64)
    denoiser = NetworkDenoiser(network, SCHEDULES.build("linear"), shape)
    return Subject("u-net", denoiser, denoising_loss, FrozenBatch([x0, times, eps]), "mean squared error in eps")


def their_batch(ours):
    """Noisy images, times and noise."""
    from consistency_lab.diffusion.loss import noisy_state

    x0, times, eps = ours.batch.tensors
    return noisy_state(ours.module.schedule, x0, times, eps), times.float(), eps


def vectors(count):
    import torch

    size = sum(p.numel() for p in subject(1).module.parameters())
    return torch.randn(size, count, generator=torch.Generator().manual_seed(1))


def eigenthings(ours):
    """hessian-eigenthings' operator on the network."""
    from hessian_eigenthings import HessianOperator
    from torch.nn.functional import mse_loss

    network = ours.module.network.requires_grad_(True)
    return HessianOperator(network, [their_batch(ours)], lambda m, batch: mse_loss(m(batch[0], batch[1]), batch[2]))


def curvlinops(ours):
    """curvlinops' operator on the network, whose SiLUs and group norms are written out: it has no derivatives of torch's own."""
    import torch
    from curvlinops import HessianLinearOperator

    torch.nn.functional.silu = lambda x, inplace=False: x * torch.sigmoid(x)
    torch.nn.functional.group_norm = _group_norm
    network = ours.module.network.requires_grad_(True)

    class Called(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, batch):
            return self.network(batch["x"], batch["t"])

    model, (x, t, eps) = Called(), their_batch(ours)
    data = [({"x": x, "t": t}, eps)]
    return HessianLinearOperator(
        model,
        torch.nn.MSELoss(),
        list(model.parameters()),
        data,
        check_deterministic=False,
        batch_size_fn=lambda batch: len(batch["t"]),
    )


def math_attention():
    """Attention has forward-mode and second derivatives in this kernel only."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    return sdpa_kernel(SDPBackend.MATH)


def _group_norm(x, groups, weight, bias, eps):
    rows = x.reshape(len(x), groups, -1)
    rows = rows - rows.mean(-1, keepdim=True)
    rows = rows * (rows.pow(2).mean(-1, keepdim=True) + eps).rsqrt()
    return rows.reshape(x.shape) * weight[:, None, None] + bias[:, None, None]
