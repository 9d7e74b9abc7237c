"""How the student learns: models, teacher outputs, losses, trainer."""
