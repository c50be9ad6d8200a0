"""An insurer of oyster farms asks for the index that its policies pay by."""
