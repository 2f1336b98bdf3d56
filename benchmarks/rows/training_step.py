from _training import STEPS, checked_batches, denoiser, images, ours_step, settings

TITLE = "training step with EMA, batches of 128 images of 1x8x8"
PEER = "diffusers 0.42.1 (its documented loop), denoising-diffusion-pytorch 2.3.4 (its Trainer)"
CASES = (
    "U-Net, diffusers",
    "U-Net, diffusers' own UNet2DModel of the same weights",
    "DiT, diffusers",
    "MLP, diffusers",
    "U-Net, denoising-diffusion-pytorch",
    "DiT, denoising-diffusion-pytorch",
    "MLP, denoising-diffusion-pytorch",
)
GOALS = {"": 1.3}
TOLERANCE = 2e-3
NOTE = (
    "Both sides train the same network (but for the case of UNet2DModel, which has the same weights); the losses of eight steps on "
    "given batches are compared. The loop of diffusers is its documentation's, without accelerate; the Trainer's images are in "
    "memory. What we do less: one kernel for Adam, no scaling of gradients that are small, no data loader. What both do alike is the "
    "network, forward and backward: 90 % of our step of the U-Net (at 33 % of the machine's peak, a product of 1024x1024 matrices in "
    "float32), 90 % of the DiT's (23 %) and 64 % of the MLP's (42 %). So on the same network a loop can be 1.1 times as fast for the "
    "first two at most, and 1.3 is out of reach there. The 3x3 convolutions run at two thirds of the peak by themselves; small "
    "activations and channels take the rest. torch.compile (inductor) made the U-Net's forward and backward pass 1.0, the DiT's 1.1 "
    "and the MLP's 1.1 times as fast, for 54, 22 and 14 s of processor time once, so it is no option of training."
)
PACKAGES = ("diffusers", "denoising-diffusion-pytorch", "ema-pytorch", "accelerate")


def _network(case):
    return {"U": "unet", "D": "dit", "M": "mlp"}[case[0]]


def ours(case):
    step = ours_step(_network(case))
    answer = step.trained()
    loop = iter(step.loop())

    def work():
        for _ in range(STEPS):
            next(loop)
        return answer

    return work


def theirs(case):
    name = _network(case)
    if "pytorch" in case:
        return _trainer(name)
    return _diffusers(name, "UNet2DModel" in case)


def _diffusers(name, own):
    """The loop of diffusers' documentation ("Train a diffusion model"), without accelerate, which only costs."""
    import torch
    import torch.nn.functional as F
    from diffusers import DDPMScheduler
    from diffusers.optimization import get_constant_schedule
    from diffusers.training_utils import EMAModel
    from torch.utils.data import DataLoader, TensorDataset

    chosen, pixels = settings(name), images().all()

    class Loop:
        def __init__(self):
            self.network = denoiser(name).network
            if own:
                self.network = _unet2d(self.network)
            self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=chosen.lr, weight_decay=0.0)
            self.rate = get_constant_schedule(self.optimizer)
            self.average = EMAModel(self.network.parameters(), foreach=True)
            self.schedule = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")

        def step(self, clean, noise=None, index=None):
            noise = torch.randn(clean.shape) if noise is None else noise
            index = torch.randint(0, 1000, (len(clean),), dtype=torch.int64) if index is None else index
            noisy = self.schedule.add_noise(clean, noise, index)
            if own:
                predicted = self.network(noisy, index, return_dict=False)[0]
            else:
                predicted = self.network(noisy, (index + 1) / 1000)
            loss = F.mse_loss(predicted, noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), chosen.clip_norm)
            self.optimizer.step()
            self.rate.step()
            self.optimizer.zero_grad()
            self.average.step(self.network.parameters())
            return loss.detach()

    check = Loop()
    losses = [check.step(x0, eps, index) for x0, index, eps in checked_batches(name)]
    loop, loader = Loop(), DataLoader(TensorDataset(pixels), batch_size=chosen.batch, shuffle=True, drop_last=True)

    def batches():
        while True:
            for (clean,) in loader:
                yield clean

    given = batches()

    def work():
        for _ in range(STEPS):
            loop.step(next(given))
        return {"loss": torch.stack(losses)}

    return work


def _unet2d(network):
    """diffusers' own network with the weights of ours."""
    from diffusers import UNet2DModel

    from consistency_lab.networks.diffusers_keys import diffusers_config, to_diffusers_state

    made = UNet2DModel(**{k: v for k, v in diffusers_config(network).items() if not k.startswith("_")})
    made.load_state_dict(to_diffusers_state(network))
    return made.train()


def _trainer(name):
    """denoising-diffusion-pytorch's GaussianDiffusion and Trainer, with its images in memory in the place of a folder of files."""
    import tempfile

    import denoising_diffusion_pytorch.denoising_diffusion_pytorch as peer
    import torch
    from denoising_diffusion_pytorch import GaussianDiffusion, Trainer
    from PIL import Image
    from torch import nn

    chosen, pixels = settings(name), (images().all() + 1) / 2
    bar = peer.tqdm
    peer.tqdm = lambda *a, **more: bar(*a, **{**more, "disable": True})  # is no part of a step

    class Shown(nn.Module):
        """Our network as its GaussianDiffusion asks for it."""

        def __init__(self):
            super().__init__()
            self.inner, self.channels, self.out_dim, self.self_condition = denoiser(name).network, 1, 1, False

        def forward(self, x, t, condition=None):
            return self.inner(x, (t + 1) / 1000)

    def trainer(batches):
        folder = tempfile.mkdtemp()
        for k in range(100):
            Image.new("L", (8, 8)).save(f"{folder}/{k}.png")
        diffusion = GaussianDiffusion(
            Shown(), image_size=8, timesteps=1000, objective="pred_noise", beta_schedule="linear"
        )
        made = Trainer(
            diffusion,
            folder,
            train_batch_size=chosen.batch,
            train_lr=chosen.lr,
            train_num_steps=0,
            adam_betas=(0.9, 0.999),
            ema_update_every=1,
            save_and_sample_every=10**9,
            calculate_fid=False,
            results_folder=f"{folder}/results",
        )
        made.dl = batches
        return made, diffusion

    losses = []
    given = checked_batches(name)
    check, diffusion = trainer(iter([(x0 + 1) / 2 for x0, _, _ in given]))
    queue = iter(given)
    plain = diffusion.forward

    def forced(image, **more):
        _, index, eps = next(queue)
        loss = plain(image, noise=eps, times=index)
        losses.append(loss.detach())
        return loss

    diffusion.forward = forced
    check.train_num_steps = len(given)
    check.train()

    def batches():
        while True:
            for places in torch.randperm(len(pixels)).split(chosen.batch):
                yield pixels[places]

    loop, _ = trainer(batches())

    def work():
        loop.train_num_steps += STEPS
        loop.train()
        return {"loss": torch.stack(losses)}

    return work
