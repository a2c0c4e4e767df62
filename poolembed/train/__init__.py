"""Training: labelled clips in, a bundle with its own pooling out."""
