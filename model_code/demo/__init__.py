"""The embedded city: a simulator with known latents."""
