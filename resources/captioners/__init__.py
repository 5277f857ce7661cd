"""Real captioners, each behind `model_code.backends.Captioner`; opened by `resources.backends`."""
