"""The client's side of HTTP: entry, proxy (the straight line), relay, reply, headers."""
