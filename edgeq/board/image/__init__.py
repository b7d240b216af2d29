"""The image that all boards boot from: kernel, initial RAM file system, read-only root, keys."""
