"""What the student is compared with: losses on outputs, losses on intermediate layers."""
