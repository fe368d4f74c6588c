"""The alpha-GAN's networks, layers, losses and generator file."""
