"""Find the handwriting in a picture and bring it into MNIST's form."""
