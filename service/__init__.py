"""How a model is served: the web process, its settings, and the parts that it is wired from."""
