"""What the product's models are compared with: `make accuracy` prints it."""
