"""Parts of the training loop: batches, augmentation, optimizers, calibration, resume points."""
