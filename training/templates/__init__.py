"""Templates of `torchloop new`: KIND_model.py, KIND_network.py, KIND_recipe.py and KIND_test.py. See training.new."""
