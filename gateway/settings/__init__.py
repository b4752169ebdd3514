"""gateway.yaml and the environment, as typed settings; every mistake reported at once."""
