"""A platform asks until when its couriers' health certificates are valid."""
