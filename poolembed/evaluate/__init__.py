"""How good embeddings are: metrics, retrieval, probes on top of them, bootstrap intervals, baselines."""
