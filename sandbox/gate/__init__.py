"""The output gate: nothing leaves because somebody forgot to look."""
