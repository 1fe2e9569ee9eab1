"""Training of all networks: one loop, augmentation, losses, and the leakage switch."""
