"""Every output of an intersection over generated rows: who, how many, how much, and what the other side knows."""
