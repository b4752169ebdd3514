"""Cold paths over HTTP under /_tollway: own usage, metrics, health."""
