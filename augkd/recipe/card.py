"""The terms that the cards of a student and its transfer set state; no artefact depends on them."""

from __future__ import annotations

from augkd.recipe.table import Table


class CardOptions(Table):
    """Licences and language, which only the user knows; a card says that a missing one is unknown."""

    license: str | None = None  # of the student, as the Hub writes it: apache-2.0
    data_license: str | None = None  # of the transfer set: task and corpus together
    language: str | list[str] | None = None  # codes such as en
