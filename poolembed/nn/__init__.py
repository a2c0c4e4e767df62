"""Networks: log-mel front end, encoder, temporal pooling, and the model that composes them. Shapes in, shapes out."""
