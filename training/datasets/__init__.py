"""Dataset versions made of users' files: read, checked by the spec, split permanently, opened for training."""
