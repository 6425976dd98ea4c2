"""Methods that align a model: preferences, rewards, distillation. Each is one file on a trainer of TRL."""
