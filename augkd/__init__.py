"""augkd: data augmentation for knowledge distillation, with a retrieval index.

Importing the package does nothing but define names; each part is imported where it is used.
"""

__version__ = "0.1.0"
