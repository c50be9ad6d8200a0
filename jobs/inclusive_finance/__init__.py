"""A bank asks what three departments know of the small businesses that want a loan."""
