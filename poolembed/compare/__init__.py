"""Every pooling side by side: the same encoder, seeds and batches, and a search of one size for each."""
