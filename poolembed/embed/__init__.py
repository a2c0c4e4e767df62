"""Songs to windows, windows to batches, batches to merged states, states to embeddings on disk."""
