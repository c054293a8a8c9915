"""Dataset versions made of users' files: read, judged by the spec, split for good, opened for training."""
