"""What a model is: its network, and how request bodies become its samples and its outputs become predictions."""
