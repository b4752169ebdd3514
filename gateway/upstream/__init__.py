"""Where requests go: the transport port, its two implementations, and the sandbox."""
