"""Training steps: backward graphs, losses and optimisers."""
