"""The control plane: organisations, access keys, service accounts, and the spaces that people name."""
