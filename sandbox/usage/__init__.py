"""Metering and what it costs."""
