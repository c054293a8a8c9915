"""Find the handwriting in a picture and normalise it to the form of MNIST."""
