"""What may run: scenario, consent, quota, and the one function that admits."""
