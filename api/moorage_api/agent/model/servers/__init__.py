"""What a model's server says about itself: refusals, errors, waits, its window, and what is learnt from them."""
