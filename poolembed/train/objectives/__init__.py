"""What a run trains for: one class an objective, with its loss, its head, its metrics, and the clips it needs."""
