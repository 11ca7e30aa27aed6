"""What the models are compared with: `make accuracy` prints it, `make fit-gpu` fits the GPU files."""
