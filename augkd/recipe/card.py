"""The terms that the cards of a student and its transfer set state; nothing that is made depends on them."""

from __future__ import annotations

from augkd.recipe.table import Table


class CardOptions(Table):
    """What only the user knows of terms and language; left out, a card says that it does not know."""

    license: str | None = None  # of the student, as the Hub writes it: apache-2.0
    data_license: str | None = None  # of the transfer set: task and corpus together
    language: str | list[str] | None = None  # codes, like en
