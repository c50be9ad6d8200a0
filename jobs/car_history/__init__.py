"""A dealer asks what is on record about the second-hand cars on its yard."""
