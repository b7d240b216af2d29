"""Examples that run on real models."""
