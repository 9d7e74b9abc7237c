"""How the student learns: the trainer and its stages, the teacher's outputs, the losses, the adversaries."""
