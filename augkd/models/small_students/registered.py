"""Makes `transformers` know the models of ours by the `model_type` in a saved folder. The one place where it happens.

Importing this is enough for `AutoModelForSequenceClassification` and `pipeline("text-classification", …)` to open one.
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForSequenceClassification

from augkd.models.small_students.bilstm import BiLSTMConfig, BiLSTMForSequenceClassification
from augkd.models.small_students.static import StaticConfig, StaticForSequenceClassification

for _config, _model in (
    (BiLSTMConfig, BiLSTMForSequenceClassification),
    (StaticConfig, StaticForSequenceClassification),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModelForSequenceClassification.register(_config, _model, exist_ok=True)
