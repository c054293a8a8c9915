"""How a model is fitted: data, recipes, the epoch loop and the command line."""
