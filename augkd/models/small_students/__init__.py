"""Students that are not layers of the teacher: a BiLSTM, a static one, a smaller transformer.

Two of them are architectures that `transformers` does not have; `register_models` makes it know them.
"""


def register_models() -> None:
    """Makes `transformers` open saved BiLSTM and static students; calling it again changes nothing.

    Needed before `AutoModelForSequenceClassification.from_pretrained` or `pipeline("text-classification", …)` on such
    a folder. augkd's own loaders call it themselves.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from augkd.models.small_students.bilstm import BiLSTMConfig, BiLSTMForSequenceClassification
    from augkd.models.small_students.static import StaticConfig, StaticForSequenceClassification

    for config, model in (
        (BiLSTMConfig, BiLSTMForSequenceClassification),
        (StaticConfig, StaticForSequenceClassification),
    ):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModelForSequenceClassification.register(config, model, exist_ok=True)
