"""A bank asks which of the couples that want a loan together are registered as married."""
