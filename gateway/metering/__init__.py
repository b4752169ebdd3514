"""Estimates before, counts after, and the flusher that carries usage to the ledger."""
