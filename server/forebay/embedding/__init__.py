"""Text to vector, on the CPU, beside the event loop and without the network."""
