"""The model: the client of its server, what its answers mean, and what is known of each family of models."""
