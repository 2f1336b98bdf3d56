"""Modules ``network(x, t, cond)`` -> shaped as x: U-Net, DiT, U-ViT and MLP, by name. They know no noise schedule."""
