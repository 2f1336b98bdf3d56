"""Other people's models: diffusers folders, TorchScript files and any torch module, as models to compare and probe."""
