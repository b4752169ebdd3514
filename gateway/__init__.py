"""Tollway: a reverse-proxy gateway that admits, meters and bills requests to any LLM or internal API."""
