"""Models: networks, their specs, and the conversion of request bodies to samples and of outputs to predictions."""
