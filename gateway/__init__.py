"""Tollway: a reverse-proxy gateway that admits, meters and limits requests to any LLM or internal API."""
