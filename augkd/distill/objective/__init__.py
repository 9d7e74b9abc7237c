"""What a student is trained to minimise: losses on its outputs and between intermediate layers."""
