"""Logs, metrics and the one record per request."""
