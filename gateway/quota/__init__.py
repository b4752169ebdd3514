"""The limiter: its port, its Redis implementation and its in-process model; key names; the embedded server."""
