"""What a model sends: the answer, its calls, its fields of its own, and the tokens that it used."""
