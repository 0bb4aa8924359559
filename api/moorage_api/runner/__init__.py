"""The process that claims runs and works through them."""
