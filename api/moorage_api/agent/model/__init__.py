"""What is known of a model and its server: fields of its own, family profiles, and what it refused."""
